//! Single values: numbers, and the texts that stand for durations, sizes, prefixes and ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

/// One value of a configuration file, before it is given a meaning.
#[derive(Debug)]
pub struct Value<'v>(Kind<'v>);

#[derive(Debug)]
enum Kind<'v> {
    File(&'v DeValue<'v>),
    Text(&'v str),
}

impl<'v> Value<'v> {
    pub(super) fn new(raw: &'v DeValue<'v>) -> Self {
        Self(Kind::File(raw))
    }

    pub(super) fn text_of(text: &'v str) -> Self {
        Self(Kind::Text(text))
    }

    /// The text of a string value.
    #[must_use]
    pub fn text(&self) -> Option<&'v str> {
        match self.0 {
            Kind::File(raw) => raw.as_str(),
            Kind::Text(text) => Some(text),
        }
    }

    /// The number of an integer value that fits `i64`.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        let Kind::File(DeValue::Integer(integer)) = self.0 else {
            return None;
        };
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// The number of a float or integer value.
    #[must_use]
    pub fn float(&self) -> Option<f64> {
        match self.0 {
            Kind::File(DeValue::Float(float)) => float.as_str().parse().ok(),
            Kind::File(DeValue::Integer(integer)) => integer.as_str().parse().ok(),
            Kind::File(_) | Kind::Text(_) => None,
        }
    }

    /// The truth of a boolean value.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        let Kind::File(DeValue::Boolean(boolean)) = self.0 else {
            return None;
        };
        Some(*boolean)
    }
}

/// A type that one value of a file can become.
pub trait FromValue: Sized {
    /// What is expected, in the words of an error message: "a duration such as \"5m\"".
    const EXPECTED: &'static str;

    /// Converts `value`.
    ///
    /// # Errors
    /// What is wrong with it, in words for the person who wrote the file.
    fn from_value(value: &Value<'_>) -> Result<Self, String>;
}

fn expected<T: FromValue>() -> String {
    format!("expected {}", T::EXPECTED)
}

/// Implements [`FromValue`] for a type whose text form is all there is to it.
fn from_text<T: FromValue>(
    value: &Value<'_>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, String> {
    let text = value.text().ok_or_else(expected::<T>)?;
    parse(text).ok_or_else(|| format!("`{text}`: expected {}", T::EXPECTED))
}

impl FromValue for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        value.boolean().ok_or_else(expected::<Self>)
    }
}

impl FromValue for String {
    const EXPECTED: &'static str = "text in quotes";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        value.text().map(str::to_owned).ok_or_else(expected::<Self>)
    }
}

impl FromValue for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        value
            .float()
            .filter(|float| float.is_finite())
            .ok_or_else(expected::<Self>)
    }
}

macro_rules! whole_numbers {
    ($($type:ty => $expected:literal),+) => {$(
        impl FromValue for $type {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: &Value<'_>) -> Result<Self, String> {
                let number = value.integer().ok_or_else(expected::<Self>)?;
                Self::try_from(number).map_err(|_| format!("{number}: expected {}", $expected))
            }
        }
    )+};
}

whole_numbers! {
    u8 => "a whole number from 0 to 255",
    u16 => "a whole number from 0 to 65535",
    u32 => "a whole number from 0 to 4294967295",
    u64 => "a whole number, 0 or more",
    usize => "a whole number, 0 or more",
    i64 => "a whole number"
}

impl FromValue for PathBuf {
    const EXPECTED: &'static str = "the path of a file in quotes";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        from_text(value, |text| (!text.is_empty()).then(|| Self::from(text)))
    }
}

impl FromValue for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as \"203.0.113.10:3478\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        from_text(value, |text| text.parse().ok())
    }
}

/// An address to listen on, or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddrOrOff(pub Option<SocketAddr>);

impl FromValue for AddrOrOff {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:9478\", or \"off\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        from_text(value, |text| match text {
            "off" => Some(Self(None)),
            address => Some(Self(Some(address.parse().ok()?))),
        })
    }
}

impl FromValue for IpAddr {
    const EXPECTED: &'static str = "an IP address such as \"203.0.113.10\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        from_text(value, |text| text.parse().ok())
    }
}

impl FromValue for Duration {
    const EXPECTED: &'static str =
        "a duration in quotes such as \"250ms\", \"10s\", \"5m\", \"1h\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        from_text(value, duration_from_text)
    }
}

/// Reads `250ms`, `10s`, `5m`, `1h`, `2d`, or several in a row: `1h30m`.
#[must_use]
pub fn duration_from_text(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let letters = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let part = match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => number.checked_mul(60).map(Duration::from_secs),
            "h" => number.checked_mul(3_600).map(Duration::from_secs),
            "d" => number.checked_mul(86_400).map(Duration::from_secs),
            _ => None,
        };
        total = total.checked_add(part?)?;
        if tail.is_empty() {
            return Some(total);
        }
        rest = tail;
    }
}

/// A number of bytes, written as `"512B"`, `"64KiB"`, `"2MiB"` or `"1GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    const UNITS: [(&'static str, u64); 4] = [
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("B", 1),
    ];

    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let (unit, factor) = Self::UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*factor).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |factor: u64| self.0 > 0 && self.0.is_multiple_of(factor);
        match Self::UNITS.iter().find(|(_, factor)| exact(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromValue for Size {
    const EXPECTED: &'static str = "a size in quotes such as \"512B\", \"64KiB\", \"2MiB\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        from_text(value, Self::parse)
    }
}

/// The addresses that share their first bits: `10.9.0.0/16`; a bare address is a prefix of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpPrefix {
    address: IpAddr,
    length: u8,
}

impl IpPrefix {
    /// A prefix of `length` bits; `None` if it is longer than the address or has bits beyond it.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let prefix = Self { address, length };
        (length <= width(address) && prefix.masked(address) == address).then_some(prefix)
    }

    /// Whether `address` lies within. An IPv4-mapped IPv6 address is judged as it is written.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.masked(address) == self.address
    }

    /// The first address of the prefix.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The number of bits that all its addresses share.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    fn masked(self, address: IpAddr) -> IpAddr {
        let host_bits = u32::from(width(address).saturating_sub(self.length));
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromValue for IpPrefix {
    const EXPECTED: &'static str = "an address prefix such as \"10.9.0.0/16\" or \"2001:db8::/32\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        let text = value.text().ok_or_else(expected::<Self>)?;
        let wrong = || format!("`{text}`: expected {}", Self::EXPECTED);
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length = match length {
            "" if !text.contains('/') => width(address),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| wrong())?
            }
            _ => return Err(wrong()),
        };
        if length > width(address) {
            return Err(format!(
                "`{text}`: a prefix is at most {} bits long",
                width(address)
            ));
        }
        Self::new(address, length).ok_or_else(|| {
            let network = Self { address, length }.masked(address);
            format!("`{text}`: has bits beyond its length; did you mean {network}/{length}?")
        })
    }
}

/// Ports from the first to the last, both included: `"49152-65535"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl PortRange {
    /// How many ports there are; never 0.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromValue for PortRange {
    const EXPECTED: &'static str = "ports from lowest to highest such as \"49152-65535\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        from_text(value, |text| {
            let (first, last) = text.split_once('-')?;
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (1 <= first && first <= last).then_some(Self { first, last })
        })
    }
}
