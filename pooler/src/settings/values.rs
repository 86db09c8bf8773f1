//! The types that a setting can have: how each is read from text and shown again.

use std::fmt;
use std::time::Duration;

/// A type of setting. `parse` says what it wanted when the text is something else.
pub trait Value: Sized {
    fn parse(text: &str) -> Result<Self, String>;
    /// As SHOW CONFIG prints it; None is NULL.
    fn show(&self) -> Option<String>;
}

/// A text that never appears in logs or errors.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The secret itself, for the authentication code only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A comma-separated list of names.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Names {
    pub list: Vec<String>,
    text: String,
}

impl Names {
    pub fn contains(&self, name: &str) -> bool {
        self.list.iter().any(|n| n == name)
    }

    /// For names of Postgres parameters, which have no case.
    pub fn contains_ignoring_case(&self, name: &str) -> bool {
        self.list.iter().any(|n| n.eq_ignore_ascii_case(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl Value for Names {
    fn parse(text: &str) -> Result<Self, String> {
        let list = text.split(',').map(str::trim).filter(|n| !n.is_empty()).map(String::from).collect();
        Ok(Names { list, text: text.to_string() })
    }
    fn show(&self) -> Option<String> {
        Some(self.text.clone())
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_string())
    }
    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Value for Option<String> {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Some(text.to_string()).filter(|t| !t.is_empty()))
    }
    fn show(&self) -> Option<String> {
        self.clone()
    }
}

/// C's base prefixes: `0777` is octal and `0x1f` hexadecimal, as PgBouncer reads every whole number.
fn whole_number(text: &str) -> Result<u64, String> {
    let parsed = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => u64::from_str_radix(&text[2..], 16),
        [b'0', _, ..] => u64::from_str_radix(&text[1..], 8),
        _ => text.parse(),
    };
    parsed.map_err(|_| format!("expected a whole number, 0 or more, not \"{text}\""))
}

impl Value for u32 {
    fn parse(text: &str) -> Result<Self, String> {
        let number = whole_number(text)?;
        i32::try_from(number).map(|n| n as u32).map_err(|_| format!("{text} is over 2147483647"))
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for u16 {
    fn parse(text: &str) -> Result<Self, String> {
        u16::try_from(whole_number(text)?).map_err(|_| format!("{text} is over 65535"))
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => Ok(true),
            "no" | "off" | "false" => Ok(false),
            _ => whole_number(text).map(|n| n != 0).map_err(|_| format!("expected 0 or 1, not \"{text}\"")),
        }
    }
    fn show(&self) -> Option<String> {
        Some(u8::from(*self).to_string())
    }
}

/// Seconds, fractions allowed; 0 is off.
impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let seconds: f64 =
            text.parse().map_err(|_| format!("expected a number of seconds, not \"{text}\""))?;
        // A hundred years: longer is surely a mistake, and would overflow a deadline.
        if !(0.0..=3.2e9).contains(&seconds) {
            return Err(format!("expected 0 or more seconds, not \"{text}\""));
        }
        Ok(Duration::from_secs_f64(seconds))
    }
    fn show(&self) -> Option<String> {
        Some(self.as_secs_f64().to_string())
    }
}

/// A time that is written in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Millis(pub Duration);

impl Value for Millis {
    fn parse(text: &str) -> Result<Self, String> {
        u32::parse(text).map(|n| Millis(Duration::from_millis(n.into())))
    }
    fn show(&self) -> Option<String> {
        Some(self.0.as_millis().to_string())
    }
}

/// Permission bits of a file, written in octal. `SHOW CONFIG` tells them in decimal, as PgBouncer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FileMode(pub u32);

impl Value for FileMode {
    fn parse(text: &str) -> Result<Self, String> {
        let mode = whole_number(text)?;
        if mode > 0o7777 {
            return Err(format!("expected permission bits such as 0777, not \"{text}\""));
        }
        Ok(FileMode(mode as u32))
    }
    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

/// One of several words: an enum whose variants each have one spelling.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl Value for $name {
            fn parse(text: &str) -> Result<Self, String> {
                $(if text.eq_ignore_ascii_case($word) { return Ok($name::$variant); })+
                Err(format!("expected one of {}, not \"{text}\"", Self::WORDS.join(", ")))
            }
            fn show(&self) -> Option<String> {
                Some(self.as_str().to_string())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

choice!(
    /// When a server goes back to the pool.
    PoolMode { Session = "session", Transaction = "transaction", Statement = "statement" }
);
choice!(
    /// How clients prove who they are.
    AuthType {
        Any = "any",
        Trust = "trust",
        Plain = "plain",
        Md5 = "md5",
        Cert = "cert",
        Hba = "hba",
        Scram = "scram-sha-256",
        Ldap = "ldap",
    }
);
choice!(
    /// libpq's words for how much TLS is asked.
    SslMode {
        Disable = "disable",
        Allow = "allow",
        Prefer = "prefer",
        Require = "require",
        VerifyCa = "verify-ca",
        VerifyFull = "verify-full",
    }
);
choice!(
    /// Whether new connections go round the hosts of a list or stay with the first that answers.
    LoadBalanceHosts { Disable = "disable", RoundRobin = "round-robin" }
);
