//! `config.env.example` tells every setting of this tool with its default.

#[test]
fn the_example_file_lists_every_setting_with_its_default() {
    let file = include_str!("../../config.env.example");
    let lacking: Vec<String> = load_tests::settings::SETTINGS
        .iter()
        .map(|setting| chassis::settings::example(std::slice::from_ref(setting)))
        .filter(|section| !file.contains(section.as_str()))
        .collect();
    assert!(lacking.is_empty(), "config.env.example lacks, or tells otherwise:\n{}", lacking.concat());
}
