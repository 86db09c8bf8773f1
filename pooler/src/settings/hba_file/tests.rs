use proptest::prelude::*;

use super::*;
use crate::logic::hba::{Facts, Rules};

fn no_files(_: &Path) -> Result<String, String> {
    Err("no such file".to_string())
}

fn read_with(text: &str, load: LoadFile<'_>) -> (Rules, Vec<String>) {
    let mut warnings = Vec::new();
    let maps =
        parse_maps("ident.conf", "m cn.example bob\nm \"odd name\" \"all\"\nany x all\n", &mut warnings);
    let mut reader = HbaReader { path: Path::new("/etc/hba.conf"), maps: &maps, load, warnings };
    let rules = reader.rules(text);
    let warnings = reader.warnings;
    (Rules { rules, maps }, warnings)
}

fn read(text: &str) -> Rules {
    let (rules, warnings) = read_with(text, &no_files);
    assert_eq!(warnings, Vec::<String>::new());
    rules
}

fn facts<'a>(address: &str, database: &'a str, user: &'a str) -> Facts<'a> {
    let address = (!address.is_empty()).then(|| address.parse().unwrap());
    Facts { address, tls: false, database, user, replication: false }
}

fn method_of(rules: &Rules, facts: Facts<'_>) -> Option<(usize, Method)> {
    rules.find(&facts).map(|rule| (rule.line, rule.method))
}

#[test]
fn the_first_rule_that_fits_decides() {
    let rules = read(
        "# comment\n\n\
         local all admin trust\n\
         host a,b u1 , u2 10.0.0.0/8 md5 # nets\n\
         host sameuser all 10.1.0.0 255.255.0.0 password\n\
         hostssl all all all cert map=m\n\
         hostnossl all all ::1/128 reject\n\
         host \"all\" all 0.0.0.0/0 scram-sha-256\n",
    );
    assert_eq!(method_of(&rules, facts("", "x", "admin")), Some((3, Method::Trust)));
    assert_eq!(method_of(&rules, facts("", "x", "other")), None);
    assert_eq!(method_of(&rules, facts("10.9.9.9", "b", "u2")), Some((4, Method::Md5)));
    assert_eq!(method_of(&rules, facts("::ffff:10.9.9.9", "b", "u2")), Some((4, Method::Md5)));
    assert_eq!(method_of(&rules, facts("10.1.2.3", "bob", "bob")), Some((5, Method::Plain)));
    assert_eq!(method_of(&rules, facts("10.2.2.3", "bob", "bob")), None);
    let tls = Facts { tls: true, ..facts("1.2.3.4", "x", "y") };
    assert_eq!(method_of(&rules, tls), Some((6, Method::Cert)));
    assert_eq!(method_of(&rules, facts("::1", "x", "y")), Some((7, Method::Reject)));
    assert_eq!(method_of(&rules, facts("1.2.3.4", "all", "y")), Some((8, Method::Scram)), "quoted: a name");
    assert_eq!(method_of(&rules, facts("1.2.3.4", "x", "y")), None);
}

#[test]
fn replication_needs_its_own_word() {
    let rules = read("host all all all trust\nhost replication all all md5\n");
    let replication = Facts { replication: true, ..facts("1.2.3.4", "x", "y") };
    assert_eq!(method_of(&rules, replication), Some((2, Method::Md5)));
}

#[test]
fn names_come_from_files_beside_the_hba_file() {
    let load = |path: &Path| match path.to_str() {
        Some("/etc/names") => Ok("bob, \"al ice\"\ncarol # x\n".to_string()),
        Some("/etc/loop") => Ok("@loop".to_string()),
        _ => Err("no such file".to_string()),
    };
    let (rules, warnings) = read_with("host all @names all trust\nhost all @loop all trust\n", &load);
    assert!(rules.find(&facts("::1", "x", "al ice")).is_some());
    assert!(rules.find(&facts("::1", "x", "dave")).is_none());
    assert!(warnings[0].contains("line 2"), "{warnings:?}");
}

#[test]
fn a_line_that_cannot_be_read_is_left_out_and_named() {
    let lines = [
        "host all all 10.0.0.0/8",
        "host all all 10.0.0.0/33 md5",
        "host all all example.org md5",
        "host all +role all md5",
        "host samerole all all md5",
        "host all all all ldap ldapserver=x",
        "host all all all cert map=unknown",
        "host all all all cert nomap",
        "local all \"x trust",
        "socket all all trust",
        "host all all all trust extra words",
    ];
    for line in lines {
        let (rules, warnings) = read_with(line, &no_files);
        assert_eq!((rules.rules.len(), warnings.len()), (0, 1), "{line}");
        assert!(warnings[0].starts_with("could not parse hba config line 1"), "{warnings:?}");
    }
}

#[test]
fn a_refusal_that_cannot_be_read_refuses_everybody() {
    let (rules, warnings) = read_with("host all +staff all reject\nhost all all all trust\n", &no_files);
    assert_eq!(warnings.len(), 1);
    assert_eq!(method_of(&rules, facts("1.2.3.4", "x", "y")), Some((1, Method::Reject)));
}

#[test]
fn maps_tell_who_may_be_whom() {
    let rules = read("");
    let mapped = |map: &str, system: &str, user: &str| rules.mapped_by(map, user, |name| name == system);
    assert!(mapped("m", "cn.example", "bob") && !mapped("m", "cn.example", "alice"));
    assert!(mapped("m", "odd name", "all") && !mapped("m", "odd name", "bob"));
    assert!(mapped("any", "x", "whoever") && !mapped("other", "x", "whoever"));
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "[a-z0-9\",@+#/. \n]{0,60}", line in "(host|local) [a-z\",@+#/. ]{0,40} reject") {
        let _ = read_with(&text, &no_files);
        let (rules, _) = read_with(&line, &no_files);
        // Whatever a line with the word reject says, it never lets anybody in.
        prop_assert!(rules.rules.iter().all(|rule| rule.method == Method::Reject || line.contains('#')));
    }

    #[test]
    fn a_network_fits_exactly_its_addresses(address: [u8; 4], other: [u8; 4], bits in 0u8..=32) {
        let text = |a: [u8; 4]| a.map(|byte| byte.to_string()).join(".");
        let rules = read(&format!("host all all {}/{bits} trust", text(address)));
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        let same = (u32::from_be_bytes(address) ^ u32::from_be_bytes(other)) & mask == 0;
        prop_assert_eq!(rules.find(&facts(&text(other), "d", "u")).is_some(), same);
    }
}

#[test]
fn a_line_with_pam_lets_nobody_in_and_says_what_to_use_instead() {
    let (rules, warnings) = read_with("host all all all pam pamservice=pgbouncer\n", &no_files);
    assert_eq!(method_of(&rules, facts("10.0.0.1", "a", "u1")), None);
    assert!(warnings[0].contains("pam is not offered") && warnings[0].contains("ldap"), "{warnings:?}");
}
