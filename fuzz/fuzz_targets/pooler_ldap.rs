//! The options of LDAP; whatever they and the client's name are, the name adds nothing to the filter but itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pooler::logic::ldap::Lookup;
use pooler::settings::ldap_options;

fn brackets(text: &str) -> usize {
    text.matches(['(', ')', '*', '\\']).count()
}

fuzz_target!(|text: &str| {
    let (user, options) = text.split_once('\n').unwrap_or(("bob", text));
    let Ok(directory) = ldap_options::parse(options) else { return };
    assert!(directory.port > 0);
    let Lookup::Search(search) = directory.lookup else { return };
    if let Some(filter) = search.filter_for(user) {
        assert_eq!(brackets(&filter), brackets(&search.filter));
    }
});
