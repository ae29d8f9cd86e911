//! Every bound of the daemon in one place, with its arithmetic.
