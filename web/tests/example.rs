//! `config.env.example` tells every setting of this service with its default.

#[test]
fn the_example_file_lists_every_setting_with_its_default() {
    let file = include_str!("../../config.env.example");
    let lacking: Vec<String> = web::settings::SETTINGS
        .iter()
        .map(|setting| chassis::settings::example(std::slice::from_ref(setting)))
        // The stack reads some of them too and then tells what they mean to it.
        .filter_map(|section| section.lines().last().map(str::to_owned))
        .filter(|line| !file.lines().any(|told| told == line))
        .collect();
    assert!(
        lacking.is_empty(),
        "config.env.example lacks, or gives another default:\n{}",
        lacking.join("\n")
    );
}
