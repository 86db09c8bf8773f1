use super::*;
use proptest::prelude::*;

fn search(filter: &str) -> Lookup {
    Lookup::Search(Search {
        base: "dc=x,dc=y".to_string(),
        scope: Scope::Subtree,
        filter: filter.to_string(),
        bind_name: String::new(),
        bind_password: Secret::default(),
    })
}

#[test]
fn a_name_is_put_between_prefix_and_suffix() {
    let read =
        parse(r#"ldapserver=10.0.0.1 "ldapport"=3890 , ldapprefix="uid=" ldapsuffix=",dc=x" ldaptls=1"#);
    let directory = read.unwrap();
    assert_eq!(directory.urls().collect::<Vec<_>>(), ["ldap://10.0.0.1:3890"]);
    assert_eq!(directory.encryption, Encryption::StartTls);
    let lookup = Lookup::Between { prefix: "uid=".to_string(), suffix: ",dc=x".to_string() };
    assert_eq!(directory.lookup, lookup);
}

#[test]
fn a_search_goes_by_attribute_or_filter() {
    for (options, filter) in [
        ("", "(uid=$username)"),
        ("ldapsearchattribute=mail", "(mail=$username)"),
        ("ldapsearchfilter=\"uid=$username\"", "(uid=$username)"),
        ("ldapsearchfilter=\"(|(a=$username)(b=$username))\"", "(|(a=$username)(b=$username))"),
    ] {
        let read = parse(&format!("ldapserver=h ldapbasedn=\"dc=x,dc=y\" {options}")).unwrap();
        assert_eq!(read.lookup, search(filter));
        assert_eq!(read.port, 389);
    }
}

#[test]
fn a_url_says_it_all() {
    let read = parse(r#"ldapurl="ldaps://h:1636/dc=x,dc%3Dy?uid?sub""#).unwrap();
    assert_eq!(read.urls().collect::<Vec<_>>(), ["ldaps://h:1636"]);
    assert_eq!(read.lookup, search("(uid=$username)"));
    let read = parse(r#"ldapurl="ldap://[::1]/dc=x,dc=y??sub?(mail=$username)""#).unwrap();
    assert_eq!(read.urls().collect::<Vec<_>>(), ["ldap://[::1]:389"]);
    assert_eq!(read.lookup, search("(mail=$username)"));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    for (text, reason) in [
        ("ldapserver=h", "requires"),
        ("ldapprefix=a ldapbasedn=b", "cannot mix"),
        ("ldapbasedn=b ldapsearchattribute=a ldapsearchfilter=f", "together"),
        ("ldapbasedn=b ldapport=0", "port"),
        ("ldapbasedn=b ldapscheme=http", "ldapscheme"),
        ("ldapbasedn=b colour=red", "invalid LDAP option"),
        ("ldapbasedn", "name=value"),
        ("ldapbasedn=", "no value"),
        ("ldapurl=http://h/b", "scheme"),
        ("ldapurl=ldap://h/b??none", "scope"),
        ("ldapurl=ldap://h/%zz", "escape"),
        ("ldapurl=ldaps://h/b ldaptls=1", "does not go with"),
        ("ldapprefix=\"x", "quote"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn the_password_of_the_search_is_not_shown() {
    let read = parse("ldapbasedn=b ldapbinddn=admin ldapbindpasswd=hush").unwrap();
    assert!(!format!("{read:?}").contains("hush"));
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "[a-z=\",%:/? ()$0-9]{0,40}", url in "\\PC{0,30}") {
        let _ = parse(&text);
        let _ = parse(&format!("ldapurl=\"ldap://{url}\""));
    }
}
