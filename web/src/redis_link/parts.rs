//! A pipeline cut into the parts that one server of a cluster can answer, and their answers in order again. No I/O: see
//! cluster.rs.

use redis::cluster_routing::Slot;
use redis::{Arg, Cmd, Pipeline, Value};

/// Who answers a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The master that has this slot.
    Slot(Slot),
    /// Any node passes publications on to all. One process sends them over one, so that they keep their order.
    Publications,
    AnyNode,
}

/// Commands with the same goal, in their order.
pub struct Part {
    pub goal: Goal,
    pub pipeline: Pipeline,
    /// Where the commands stood in the whole.
    places: Vec<usize>,
}

/// The parts of a pipeline that is no transaction.
pub fn parts(whole: &Pipeline) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (place, command) in whole.cmd_iter().enumerate() {
        let goal = goal(command);
        let at = parts.iter().position(|part| part.goal == goal).unwrap_or_else(|| {
            parts.push(Part { goal, pipeline: Pipeline::new(), places: Vec::new() });
            parts.len() - 1
        });
        parts[at].pipeline.add_command(command.clone());
        parts[at].places.push(place);
    }
    parts
}

/// The answers of the parts as the answer of the whole.
pub fn whole(answered: Vec<(Part, Vec<Value>)>) -> Vec<Value> {
    let placed = answered.into_iter().flat_map(|(part, values)| part.places.into_iter().zip(values));
    let mut placed: Vec<(usize, Value)> = placed.collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, value)| value).collect()
}

fn goal(command: &Cmd) -> Goal {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(bytes) => bytes,
        _ => b"0",
    });
    let key = match words.next() {
        Some(b"PUBLISH") => return Goal::Publications,
        Some(b"PING" | b"INFO") => None,
        // The script and the number of keys come first.
        Some(b"EVAL" | b"EVALSHA") => words.nth(2),
        _ => words.next(),
    };
    key.map_or(Goal::AnyNode, |key| Goal::Slot(Slot::for_key(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goals(parts: &[Part]) -> Vec<Goal> {
        parts.iter().map(|part| part.goal).collect()
    }

    #[test]
    fn keys_of_one_slot_stay_together_in_their_order() {
        let mut pipeline = redis::pipe();
        pipeline.hgetall("arena:{a}:meta").lrange("arena:{a}:tokens", 0, -1);
        pipeline.cmd("EVAL").arg("return 1").arg(1).arg("arena:{a}:lease");
        let parts = parts(&pipeline);
        assert_eq!(goals(&parts), [Goal::Slot(Slot::for_key("a"))]);
        assert_eq!(parts[0].pipeline.get_packed_pipeline(), pipeline.get_packed_pipeline());
    }

    #[test]
    fn each_slot_and_all_publications_are_a_part_and_answers_stand_where_their_questions_stood() {
        let mut pipeline = redis::pipe();
        pipeline.zadd("set", "one", 1).publish("here", "1").zadd("set", "two", 2).publish("there", "2");
        pipeline.get("other").cmd("INFO");
        let parts = parts(&pipeline);
        let slot = |key: &str| Goal::Slot(Slot::for_key(key));
        assert_eq!(goals(&parts), [slot("set"), Goal::Publications, slot("other"), Goal::AnyNode]);
        let mut publications = redis::pipe();
        publications.publish("here", "1").publish("there", "2");
        assert_eq!(parts[1].pipeline.get_packed_pipeline(), publications.get_packed_pipeline());
        let ints = |numbers: &[i64]| numbers.iter().map(|number| Value::Int(*number)).collect::<Vec<_>>();
        let answers = [ints(&[0, 2]), ints(&[1, 3]), ints(&[4]), ints(&[5])];
        assert_eq!(whole(parts.into_iter().zip(answers).collect()), ints(&[0, 1, 2, 3, 4, 5]));
    }
}
