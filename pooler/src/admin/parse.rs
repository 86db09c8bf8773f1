//! The console's language: `WORD [WORD] [;]` and `SET key = value [;]`, words without case, names in double quotes.

use super::facts::{Command, Show, Shutdown};

/// A statement that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Command(Command),
    /// SHOW of a parameter that drivers ask every server for, and its answer.
    FakeShow(&'static str, &'static str),
    /// SET of such a parameter: accepted without effect.
    FakeSet,
    /// ENABLE or DISABLE without a name.
    MissingDatabase,
    /// KILL_CLIENT without a number.
    BadClientId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// Not a command.
    Command,
    /// A name of no length.
    Arguments,
}

/// Parameters of Postgres that some drivers read and set without being asked.
const FAKE_PARAMETERS: &[(&str, &str)] = &[
    ("client_encoding", "UTF-8"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
    ("datestyle", "ISO"),
    ("timezone", "GMT"),
];

const SHOWS: &[(&str, Show)] = &[
    ("active_sockets", Show::ActiveSockets),
    ("clients", Show::Clients),
    ("config", Show::Config),
    ("databases", Show::Databases),
    ("dns_hosts", Show::DnsHosts),
    ("dns_zones", Show::DnsZones),
    ("fds", Show::Fds),
    ("help", Show::Help),
    ("lists", Show::Lists),
    ("mem", Show::Mem),
    ("peer_pools", Show::PeerPools),
    ("peers", Show::Peers),
    ("pools", Show::Pools),
    ("servers", Show::Servers),
    ("sockets", Show::Sockets),
    ("state", Show::State),
    ("stats", Show::Stats),
    ("stats_averages", Show::StatsAverages),
    ("stats_totals", Show::StatsTotals),
    ("totals", Show::Totals),
    ("users", Show::Users),
    ("version", Show::Version),
];

/// Reads one statement.
pub fn parse(text: &str) -> Result<Parsed, SyntaxError> {
    if let Some((key, value)) = split_set(text) {
        return set(key, value);
    }
    let mut rest = text;
    let verb = take_word(&mut rest).ok_or(SyntaxError::Command)?;
    let before_blank = rest;
    skip_blank(&mut rest);
    let argument = if rest.len() == before_blank.len() { None } else { take_word(&mut rest) };
    if !at_end(rest) {
        return Err(SyntaxError::Command);
    }
    command(&verb.to_ascii_lowercase(), argument.filter(|name| !name.is_empty()))
}

fn command(verb: &str, argument: Option<String>) -> Result<Parsed, SyntaxError> {
    let command = match (verb, argument) {
        ("show" | "select", Some(what)) => return show(&what.to_ascii_lowercase()),
        ("reload", None) => Command::Reload,
        ("suspend", None) => Command::Suspend,
        ("hand_over", None) => Command::HandOver,
        ("pause", name) => Command::Pause(name),
        ("resume", name) => Command::Resume(name),
        ("reconnect", name) => Command::Reconnect(name),
        ("kill", name) => Command::Kill(name),
        ("wait_close", name) => Command::WaitClose(name),
        ("disable", Some(name)) => Command::Disable(name),
        ("enable", Some(name)) => Command::Enable(name),
        ("disable" | "enable", None) => return Ok(Parsed::MissingDatabase),
        ("kill_client", id) => return Ok(kill_client(id.as_deref().unwrap_or(""))),
        ("shutdown", None) => Command::Shutdown(Shutdown::Now),
        ("shutdown", Some(mode)) => match mode.to_ascii_lowercase().as_str() {
            "wait_for_servers" => Command::Shutdown(Shutdown::WaitForServers),
            "wait_for_clients" => Command::Shutdown(Shutdown::WaitForClients),
            _ => return Err(SyntaxError::Command),
        },
        _ => return Err(SyntaxError::Command),
    };
    Ok(Parsed::Command(command))
}

fn show(what: &str) -> Result<Parsed, SyntaxError> {
    if let Some((name, value)) = FAKE_PARAMETERS.iter().find(|(name, _)| *name == what) {
        return Ok(Parsed::FakeShow(name, value));
    }
    let show = SHOWS.iter().find(|(name, _)| *name == what).ok_or(SyntaxError::Command)?.1;
    Ok(Parsed::Command(Command::Show(show)))
}

fn kill_client(id: &str) -> Parsed {
    // The digits in front count, as scanf has it.
    let digits = id.bytes().take_while(u8::is_ascii_digit).count();
    id[..digits].parse().map_or(Parsed::BadClientId, |id| Parsed::Command(Command::KillClient(id)))
}

fn set(key: String, value: String) -> Result<Parsed, SyntaxError> {
    if key.is_empty() {
        return Err(SyntaxError::Arguments);
    }
    if FAKE_PARAMETERS.iter().any(|(name, _)| key.eq_ignore_ascii_case(name)) {
        return Ok(Parsed::FakeSet);
    }
    Ok(Parsed::Command(Command::Set { key, value }))
}

/// `SET key = value`, `SET key TO 'value'`; None when it has another form.
fn split_set(text: &str) -> Option<(String, String)> {
    let mut rest = text;
    if !take_word(&mut rest)?.eq_ignore_ascii_case("set") {
        return None;
    }
    let key = take_word(&mut rest)?;
    skip_blank(&mut rest);
    match rest.as_bytes() {
        [b'=', ..] => rest = &rest[1..],
        [b't' | b'T', b'o' | b'O', ..] => rest = &rest[2..],
        _ => return None,
    }
    let value = take_string(&mut rest).or_else(|| take_word(&mut rest))?;
    at_end(rest).then_some((key, value))
}

fn skip_blank(rest: &mut &str) {
    *rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
}

/// Nothing but a semicolon may follow.
fn at_end(rest: &str) -> bool {
    let blank = [' ', '\t', '\n', '\r'];
    let rest = rest.trim_matches(blank);
    rest.is_empty() || rest == ";"
}

/// Letters, digits and underscores, or anything in double quotes.
fn take_word(rest: &mut &str) -> Option<String> {
    if let Some(quoted) = take_quoted(rest, '"') {
        return Some(quoted);
    }
    skip_blank(rest);
    let len = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let (word, after) = rest.split_at(len);
    *rest = after;
    (len > 0).then(|| word.to_string())
}

fn take_string(rest: &mut &str) -> Option<String> {
    take_quoted(rest, '\'')
}

/// A text in quotes; a doubled quote stands for one.
fn take_quoted(rest: &mut &str, quote: char) -> Option<String> {
    skip_blank(rest);
    let mut text = String::new();
    let mut chars = rest.strip_prefix(quote)?.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        if char != quote {
            text.push(char);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            text.push(quote);
        } else {
            *rest = &rest[at + 2..];
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(text: &str) -> Command {
        match parse(text) {
            Ok(Parsed::Command(command)) => command,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn commands_have_no_case_and_may_end_with_a_semicolon() {
        assert_eq!(run("SHOW POOLS"), Command::Show(Show::Pools));
        assert_eq!(run(" select\tStats ; "), Command::Show(Show::Stats));
        assert_eq!(run("pause"), Command::Pause(None));
        assert_eq!(run("Pause p0;"), Command::Pause(Some("p0".into())));
        assert_eq!(run("KILL \"my-\"\"db\""), Command::Kill(Some("my-\"db".into())));
        assert_eq!(run("kill_client 17"), Command::KillClient(17));
        assert_eq!(run("SHUTDOWN WAIT_FOR_SERVERS"), Command::Shutdown(Shutdown::WaitForServers));
    }

    #[test]
    fn set_takes_words_and_strings() {
        let set = |key: &str, value: &str| Command::Set { key: key.into(), value: value.into() };
        assert_eq!(run("SET pool_mode=session"), set("pool_mode", "session"));
        assert_eq!(run("set server_reset_query TO 'it''s; here' ;"), set("server_reset_query", "it's; here"));
        assert_eq!(run("set a = ''"), set("a", ""));
        assert_eq!(run("set a = \"b c\""), set("a", "b c"));
        assert_eq!(parse("set timezone='x'"), Ok(Parsed::FakeSet));
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let texts =
            ["", ";", "foo", "show", "show foo", "show pools extra", "reload x", "set a", "pause a.b"];
        for text in texts.iter().chain(&["show pools; show pools", "shutdown now", "set a = b c", "kill \"x"])
        {
            assert_eq!(parse(text), Err(SyntaxError::Command), "{text}");
        }
        assert_eq!(parse("enable"), Ok(Parsed::MissingDatabase));
        assert_eq!(parse("kill_client"), Ok(Parsed::BadClientId));
        assert_eq!(parse("kill_client abc"), Ok(Parsed::BadClientId));
        assert_eq!(parse("show client_encoding"), Ok(Parsed::FakeShow("client_encoding", "UTF-8")));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,40}", quoted in "(set|show|kill) [\"'=a\u{e4} ;]{0,20}") {
            let _ = parse(&text);
            let _ = parse(&quoted);
        }
    }
}
