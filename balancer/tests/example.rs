//! `config.env.example` tells every setting of the balancer's environment with its default.

use chassis::settings::{Setting, example, shared};

/// As it stands in the example: with the stack's default, where that is another.
fn told(setting: &Setting) -> Setting {
    if setting.name == shared::BALANCER_OPS_PORT.name { shared::BALANCER_OPS_PORT } else { *setting }
}

#[test]
fn the_example_file_lists_every_setting_with_its_default() {
    let file = include_str!("../../config.env.example");
    let lacking: Vec<String> = balancer::settings::SETTINGS
        .iter()
        .map(|setting| example(&[told(setting)]))
        .filter(|section| !file.contains(section.as_str()))
        .collect();
    assert!(lacking.is_empty(), "config.env.example lacks, or tells otherwise:\n{}", lacking.concat());
}
