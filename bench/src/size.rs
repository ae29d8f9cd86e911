//! Sizes as people write them, and the sizes of the files of a run.
//!
//! Invariant: the size of a file depends on the seed and the file's number alone, so the same
//! options send the same files, whatever the threads do.

use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;

/// Sizes beyond this are typing errors: 1 PiB, bytes.
const SIZE_BYTES_MAX: u64 = 1 << 50;
/// A log-normal size is cut at this many times the median unless the option says otherwise.
const LOG_NORMAL_CUT: u64 = 64;

/// Not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no size; write bytes, or a number with K, M, G, T (powers of 1024) or kB, MB, GB, \
     TB (powers of 1000), at most 1 PiB"
)]
pub struct BadSize(String);

/// A number of bytes: `4096`, `64K`, `1MiB`, `4MB`.
///
/// # Errors
/// [`BadSize`].
pub fn parse_bytes(text: &str) -> Result<u64, BadSize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "m" | "MiB" => 1 << 20,
        "G" | "g" | "GiB" => 1 << 30,
        "T" | "t" | "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(BadSize(text.to_owned())),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.filter(|&bytes| bytes <= SIZE_BYTES_MAX).ok_or_else(|| BadSize(text.to_owned()))
}

/// A size for people: exact where a power of 1024 fits, else in three digits.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|&(unit, _)| bytes >= unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.2} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// How large the files of a run are.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// All the same, bytes.
    Fixed(u64),
    /// One after the other, again from the start; bytes.
    List(Vec<u64>),
    /// Log-normal, as sizes of real files are.
    LogNormal {
        /// Half of the files are smaller, bytes.
        median_bytes: u64,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
        /// No file is larger, bytes.
        max_bytes: u64,
    },
}

/// No description of sizes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSizes {
    /// One of its sizes.
    #[error(transparent)]
    Size(#[from] BadSize),
    /// Not the shape of a distribution.
    #[error("write lognormal:MEDIAN:SIGMA or lognormal:MEDIAN:SIGMA:MAX, as lognormal:1M:1.2")]
    Shape,
    /// A number that is no deviation.
    #[error("'{0}' is no SIGMA: a number from 0 to 8, of the natural logarithm of the size")]
    Sigma(String),
}

impl FromStr for Sizes {
    type Err = BadSizes;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(shape) = text.strip_prefix("lognormal:") {
            return Self::log_normal(&shape.split(':').collect::<Vec<_>>());
        }
        let list = text.split(',').map(parse_bytes).collect::<Result<Vec<_>, _>>()?;
        Ok(if let [size] = list[..] { Self::Fixed(size) } else { Self::List(list) })
    }
}

impl Sizes {
    fn log_normal(parts: &[&str]) -> Result<Self, BadSizes> {
        let (median, sigma, max) = match *parts {
            [median, sigma] => (median, sigma, None),
            [median, sigma, max] => (median, sigma, Some(max)),
            _ => return Err(BadSizes::Shape),
        };
        let median_bytes = parse_bytes(median)?;
        let max_bytes = match max {
            Some(max) => parse_bytes(max)?,
            None => median_bytes.saturating_mul(LOG_NORMAL_CUT).min(SIZE_BYTES_MAX),
        };
        let number = sigma.parse::<f64>().ok().filter(|sigma| (0.0..=8.0).contains(sigma));
        let sigma = number.ok_or_else(|| BadSizes::Sigma(sigma.to_owned()))?;
        Ok(Self::LogNormal { median_bytes, sigma, max_bytes })
    }

    /// Size of file number `index`, bytes.
    #[must_use]
    pub fn size(&self, seed: u64, index: u64) -> u64 {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::List(list) => list[(index % list.len() as u64) as usize],
            &Self::LogNormal { median_bytes, sigma, max_bytes } => {
                let deviation = standard_normal(seed, index) * sigma;
                let bytes = median_bytes as f64 * deviation.exp();
                (bytes as u64).min(max_bytes)
            }
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(bytes) => f.write_str(&show_bytes(*bytes)),
            Self::List(list) => {
                let shown: Vec<_> = list.iter().map(|&bytes| show_bytes(bytes)).collect();
                f.write_str(&shown.join(", "))
            }
            Self::LogNormal { median_bytes, sigma, max_bytes } => write!(
                f,
                "log-normal, median {}, sigma {sigma}, at most {}",
                show_bytes(*median_bytes),
                show_bytes(*max_bytes)
            ),
        }
    }
}

/// The `index`-th of a sequence of well mixed numbers (the finalizer of SplitMix64).
#[must_use]
pub fn mixed(seed: u64, index: u64) -> u64 {
    let mut bits = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Normally distributed, mean 0, deviation 1 (Box and Muller).
fn standard_normal(seed: u64, index: u64) -> f64 {
    // In (0, 1], so that the logarithm is finite.
    let uniform = |n: u64| ((mixed(seed, n) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    let (radius, angle) = (uniform(2 * index), uniform(2 * index + 1));
    (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_both_kinds() {
        let good = [
            ("0", 0),
            ("4096", 4096),
            ("4K", 4096),
            ("1MiB", 1 << 20),
            ("4MB", 4_000_000),
            ("1T", 1 << 40),
            ("1024T", 1 << 50),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1.5M", "4 K", "1Q", "1025T", "99999999999999999999"] {
            assert_eq!(parse_bytes(text), Err(BadSize(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn shown_sizes_are_exact_or_say_so() {
        assert_eq!(show_bytes(1023), "1023 B");
        assert_eq!(show_bytes(4096), "4 KiB");
        assert_eq!(show_bytes(1_000_000), "976.56 KiB");
    }

    #[test]
    fn a_list_is_sent_in_turn() {
        let sizes: Sizes = "1,2K,3".parse().expect("a list");
        let sent: Vec<_> = (0..4).map(|index| sizes.size(9, index)).collect();
        assert_eq!(sent, [1, 2048, 3, 1]);
    }

    #[test]
    fn log_normal_sizes_have_the_median_and_the_spread() {
        let sizes: Sizes = "lognormal:1M:1.0:1G".parse().expect("a distribution");
        let mut drawn: Vec<_> = (0..20_000).map(|index| sizes.size(7, index)).collect();
        drawn.sort_unstable();
        let quantile = |q: f64| drawn[(q * drawn.len() as f64) as usize] as f64 / (1 << 20) as f64;
        assert!((quantile(0.5) - 1.0).abs() < 0.05, "median {}", quantile(0.5));
        // One deviation up is e times the median, and 84.13 % of a normal distribution is below.
        assert!((quantile(0.8413) - 1_f64.exp()).abs() < 0.15, "{}", quantile(0.8413));
        assert_eq!(sizes.size(7, 3), sizes.size(7, 3));
        let cut: Sizes = "lognormal:1K:8:2K".parse().expect("a distribution");
        assert_eq!((0..100).map(|index| cut.size(1, index)).max(), Some(2048));
    }

    #[test]
    fn bad_distributions_are_refused() {
        for text in ["lognormal:1M", "lognormal:1M:1:2:3"] {
            assert_eq!(text.parse::<Sizes>(), Err(BadSizes::Shape), "{text}");
        }
        for sigma in ["x", "-1", "9", "NaN"] {
            let refused = format!("lognormal:1M:{sigma}").parse::<Sizes>();
            assert_eq!(refused, Err(BadSizes::Sigma(sigma.to_owned())));
        }
        assert!("1M,,2M".parse::<Sizes>().is_err());
    }
}
