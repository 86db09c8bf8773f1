//! The compose file as text: what it asks of the settings and of the images. docker-compose itself reads it in `test`.

use std::collections::BTreeSet;

const COMPOSE: &str = include_str!("../../docker-compose.loadbalanced.yml");
const EXAMPLE: &str = include_str!("../../config.env.example");

/// Each `${NAME…}` of the compose file with what follows the name; `$$` is a dollar for a shell in the container.
fn asked() -> Vec<(&'static str, &'static str)> {
    let pieces: Vec<&str> = COMPOSE.split("${").collect();
    let asking = pieces.windows(2).filter(|pair| !pair[0].ends_with('$')).map(|pair| pair[1]);
    let places = asking.filter_map(|rest| rest.split_once('}'));
    places.map(|(inside, _)| inside.split_at(inside.find(':').unwrap_or(inside.len()))).collect()
}

/// Names that the example lists, given or commented out.
fn listed() -> BTreeSet<&'static str> {
    EXAMPLE
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='))
        .map(|(name, _)| name)
        .collect()
}

/// The lines of each service and each anchor that name an image.
fn with_image() -> Vec<String> {
    let (mut parts, mut is_service) = (Vec::<String>::new(), false);
    for line in COMPOSE.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        is_service |= line == "services:";
        if indent == 0 || (is_service && indent == 2) {
            parts.push(String::new());
        }
        parts.last_mut().expect("the file begins with a line of no indent").push_str(&format!("{line}\n"));
    }
    parts.into_iter().filter(|part| part.contains(" image: ")).collect()
}

#[test]
fn the_example_of_settings_lists_what_the_compose_file_asks_for() {
    let lacking: Vec<&str> =
        asked().into_iter().map(|(name, _)| name).filter(|name| !listed().contains(name)).collect();
    // Which Dockerfile is the build's affair, not a setting.
    assert!(lacking.iter().all(|name| *name == "ARENA_DOCKERFILE"), "config.env.example lacks {lacking:?}");
}

#[test]
fn what_cannot_be_empty_is_asked_for_with_what_to_do() {
    for secret in ["DB_PASSWORD", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "SECRET_KEY"] {
        let ways: Vec<&str> =
            asked().into_iter().filter(|(name, _)| *name == secret).map(|(_, way)| way).collect();
        assert!(!ways.is_empty(), "{secret} is not asked for");
        for way in ways {
            assert!(way.starts_with(":?") && way.contains("--env-file config.env"), "{secret}{way}");
        }
    }
}

#[test]
fn each_image_of_ours_can_be_built_by_whoever_needs_it_first() {
    let parts = with_image();
    assert!(parts.len() >= 7, "found only {} services with an image", parts.len());
    for part in parts {
        assert!(part.contains("\n    build:") || part.contains("\n  build:"), "no build:\n{part}");
    }
}

#[test]
fn the_defaults_of_the_compose_file_are_those_of_the_example() {
    let given = EXAMPLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    for (name, value) in given {
        for (_, way) in asked().into_iter().filter(|(asked, _)| *asked == name) {
            assert_eq!(way.strip_prefix(":-"), Some(value), "the default of {name} in the compose file");
        }
    }
}

/// The seconds of `stop_grace_period` of the part that holds `image`.
fn grace(image: &str) -> f64 {
    let part = with_image().into_iter().find(|part| part.contains(image)).expect("such an image");
    let (_, rest) = part.split_once("stop_grace_period: ").expect("a grace of its own");
    rest.split_once('s').and_then(|(seconds, _)| seconds.parse().ok()).expect("seconds")
}

fn given(name: &str, text: &str) -> f64 {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name));
    let value = line.expect("is given").trim_start_matches([':', '=', ' ']).trim_matches('"');
    value.parse().expect("seconds")
}

#[test]
fn a_drain_ends_before_docker_ends_it() {
    assert!(grace("arena-balancer") > given("BALANCER_DRAIN_TIMEOUT", COMPOSE));
    let drain = given("DRAIN_DELAY", EXAMPLE) + given("DRAIN_TIMEOUT", EXAMPLE);
    assert!(grace("arena-web") > drain, "a drain of {drain} s");
}

#[test]
fn packed_images_are_those_built_from_source() {
    let stages = |text: &str, programs: &str| {
        let (_, stages) = text.split_once("FROM ${BASE_IMAGE} AS base").expect("the stages of the images");
        let lines = stages.lines().filter(|line| !line.starts_with("ARG PROGRAMS"));
        let same = |line: &str| line.replace("--from=build ", "").replace(programs, "PROGRAMS");
        lines.map(same).collect::<Vec<_>>()
    };
    let source = include_str!("../../deploy/docker/Dockerfile.source");
    let binaries = include_str!("../../deploy/docker/Dockerfile.binaries");
    assert_eq!(stages(source, "/programs"), stages(binaries, "${PROGRAMS}"));
    assert!(stages(binaries, "${PROGRAMS}").iter().any(|line| line.starts_with("COPY PROGRAMS/web")));
}
