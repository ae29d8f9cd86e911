//! Ingest under the simulator: a shard, a simulated kernel, a model of the staging service.

mod counters;
mod cuts;
mod faults;
mod seeds;
mod world;
