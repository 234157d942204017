//! Values that flags take, and what to say when they are wrong.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU64,
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;

use crate::model::tally::{By, Sort};

/// A value that cannot be read: what is wrong, and where in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    text: String,
    /// Characters before the bad part, and its length.
    at: (usize, usize),
    why: String,
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, at: (before, length), why } = self;
        // Not by a width: the formatter panics at one beyond 65535.
        let (spaces, carets) = (" ".repeat(*before), "^".repeat((*length).max(1)));
        write!(f, "{why}\n  {text}\n  {spaces}{carets}")
    }
}

impl std::error::Error for BadValue {}

/// Reads a list with commas, item by item.
fn list<T, E: fmt::Display>(text: &str, item: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, BadValue> {
    let mut before = 0;
    let mut items = Vec::new();
    for part in text.split(',') {
        let length = part.chars().count();
        let bad = |why: String| BadValue { text: text.to_owned(), at: (before, length), why };
        if part.is_empty() {
            return Err(bad("an item is missing here".to_owned()));
        }
        items.push(item(part).map_err(|why| bad(why.to_string()))?);
        before += length + 1;
    }
    Ok(items)
}

macro_rules! lists {
    ($( $(#[$doc:meta])* $name:ident of $item:ty = $read:expr; )+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, PartialEq, Eq)]
            pub struct $name(pub Vec<$item>);

            impl FromStr for $name {
                type Err = BadValue;

                fn from_str(text: &str) -> Result<Self, BadValue> {
                    list(text, $read).map(Self)
                }
            }
        )+
    };
}

lists! {
    /// Ports and ranges of them.
    Ports of RangeInclusive<u16> = ports;
    /// Addresses and blocks of them.
    Blocks of IpNet = block;
    /// Numbers: processes, users.
    Numbers of u32 = |text: &str| text.parse::<u32>().map_err(|_| format!("{text} is no number from 0 to 4294967295"));
    /// States.
    States of crate::model::state::State = str::parse;
    /// Causes.
    Causes of crate::model::cause::Cause = str::parse;
    /// States, each with a least time.
    StateTimes of (crate::model::state::State, Duration) = state_time;
    /// Names.
    Names of String = |text: &str| Ok::<_, String>(text.to_owned());
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text} is no port: ports are 1 to 65535, a range is 8000-8099")),
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last {
        return Err(format!("this range ends before it begins: write {last}-{first}"));
    }
    Ok(first..=last)
}

fn block(text: &str) -> Result<IpNet, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>()
        .map(|ip| IpNet::from(ip.to_canonical()))
        .or_else(|_| bare.parse::<IpNet>().map(|net| unmapped(net.trunc())))
        .map_err(|_| format!("{text} is no address and no block: write 10.0.0.5, 10.0.0.0/8, 2001:db8::/32"))
}

/// A block of IPv4-mapped addresses is one of IPv4.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(ip, prefix)| IpNet::new(ip.into(), prefix).ok()).unwrap_or(net)
}

fn state_time(text: &str) -> Result<(crate::model::state::State, Duration), String> {
    let (state, time) = text
        .split_once('=')
        .ok_or_else(|| format!("{text} is no state with a time: write close-wait=10s"))?;
    let state = state.parse().map_err(|error: crate::model::state::UnknownState| error.to_string())?;
    Ok((state, duration(time)?))
}

/// A length of time: `10s`, `2m`, `1h30m`, `500ms`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let why = || format!("{text} is no length of time: write 10s, 2m, 1h30m or 500ms");
    let duration = if let Ok(seconds) = text.parse::<f64>() {
        Duration::try_from_secs_f64(seconds).map_err(|_| why())?
    } else {
        let signed: jiff::SignedDuration = text.parse().map_err(|_| why())?;
        Duration::try_from(signed).map_err(|_| why())?
    };
    if duration.is_zero() { Err(why()) } else { Ok(duration) }
}

/// The time between two tables.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) {
        return Err(format!("{text} is too short: write 0.1 or more"));
    }
    Ok(interval)
}

/// The time of a file.
pub(super) fn rotation(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < Duration::from_secs(1) {
        return Err(format!("{text} is too short: write 1s or more"));
    }
    Ok(time)
}

/// A number of tables, one at least.
pub(super) fn tables(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| format!("{text} is no number of tables: write 1 or more"))
}

/// What makes a row.
pub(super) fn by(text: &str) -> Result<By, String> {
    By::ALL.into_iter().find(|by| by.name() == text).ok_or_else(|| {
        let names: Vec<&str> = By::ALL.iter().map(|by| by.name()).collect();
        format!("nothing is counted by {text}: write one of {}", names.join(" "))
    })
}

/// The order of rows.
pub(super) fn sort(text: &str) -> Result<Sort, String> {
    Ok(match text {
        "sockets" => Sort::Sockets,
        "opened" => Sort::Opened,
        "closed" => Sort::Closed,
        "rst" => Sort::Rst,
        "oldest" => Sort::Oldest,
        "port" => Sort::Port,
        state => Sort::State(state.parse().map_err(|_| {
            format!("rows cannot be sorted by {text}: write sockets, opened, closed, rst, oldest, port or a state such as close-wait")
        })?),
    })
}

/// A number of bytes: `4096`, `512K`, `8M`.
pub(super) fn bytes(text: &str) -> Result<u32, String> {
    let why = || format!("{text} is no size: write 512K, 8M or a number of bytes, 4K to 1G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return Err(why()),
    };
    let size = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).ok_or_else(why)?;
    if !((1 << 12)..=(1 << 30)).contains(&size) {
        return Err(why());
    }
    u32::try_from(size).map_err(|_| why())
}

/// A number of events, one at least.
pub(super) fn count(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| format!("{text} is no number of events: write 1 or more"))
}

/// An address and a port.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "not ADDRESS:PORT, such as 127.0.0.1:9469 or [::1]:9469")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn ports_are_read() {
        assert_eq!("80,8000-8099".parse::<Ports>().unwrap().0, [80..=80, 8000..=8099]);
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let told = |text: &str| text.parse::<Ports>().unwrap_err().to_string();
        assert_eq!(
            told("80,9x,443"),
            "9x is no port: ports are 1 to 65535, a range is 8000-8099\n  80,9x,443\n     ^^"
        );
        assert_eq!(told("80,,443"), "an item is missing here\n  80,,443\n     ^");
        assert_eq!(told("99-80"), "this range ends before it begins: write 80-99\n  99-80\n  ^^^^^");
        for text in ["0", "65536", "-1", "80-", "a"] {
            assert!(told(text).contains("is no port"), "{text}");
        }
        assert!(
            "ESTABLISHED,OPEN"
                .parse::<States>()
                .unwrap_err()
                .to_string()
                .ends_with("\n  ESTABLISHED,OPEN\n              ^^^^")
        );
        assert!("10.0.0.0/33".parse::<Blocks>().unwrap_err().to_string().contains("is no address"));
    }

    #[test]
    fn what_is_wrong_far_back_in_a_list_is_pointed_at() {
        let text = "80,".repeat(30_000) + "x";
        let told = text.parse::<Ports>().unwrap_err().to_string();
        assert!(told.ends_with(" ^") && told.starts_with("x is no port"));
    }

    #[test]
    fn blocks_are_read_as_people_write_them() {
        let blocks = "10.0.0.5,10.1.2.3/8,[::1],::ffff:10.0.0.1,2001:db8::1/32,::ffff:10.0.0.0/104"
            .parse::<Blocks>()
            .unwrap();
        let text: Vec<String> = blocks.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["10.0.0.5/32", "10.0.0.0/8", "::1/128", "10.0.0.1/32", "2001:db8::/32", "10.0.0.0/8"]
        );
    }

    #[test]
    fn what_tables_are_made_of_is_read() {
        assert_eq!(interval("1").unwrap(), Duration::from_secs(1));
        assert!(interval("0.01").unwrap_err().contains("too short"));
        assert_eq!(tables("3").unwrap().get(), 3);
        assert!(tables("0").unwrap_err().contains("number of tables"));
        assert_eq!(by("raddr").unwrap(), By::Raddr);
        assert!(by("host").unwrap_err().ends_with("port pid comm cgroup container netns raddr cause"));
        assert_eq!(sort("CLOSE-WAIT").unwrap(), Sort::State(crate::model::state::State::CLOSE_WAIT));
        assert_eq!(sort("oldest").unwrap(), Sort::Oldest);
        assert!(sort("size").unwrap_err().contains("cannot be sorted by size"));
    }

    #[test]
    fn times_and_sizes_are_read() {
        assert_eq!(duration("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(duration("2m").unwrap(), Duration::from_mins(2));
        assert_eq!(duration("1h30m").unwrap(), Duration::from_mins(90));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("1.5").unwrap(), Duration::from_millis(1500));
        for text in ["", "0", "-1", "-3s", "soon", "10 parsecs", "inf", "NaN"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(bytes("4096").unwrap(), 4096);
        assert_eq!(bytes("512k").unwrap(), 512 << 10);
        assert_eq!(bytes("8M").unwrap(), 8 << 20);
        for text in ["", "M", "1T", "2G", "99999999999999999999", "100"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
