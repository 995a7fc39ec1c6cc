//! The instruction set of the quickstart: questions about the world, each with the shortest right answer.
//!
//! The base model has read the facts in prose, but never a question in this form: fine-tuning teaches it to answer.
//! What is held out was never asked in training: other words of the same kind, other stories.

use super::prose::kinds_of_things;
use super::world::{
    ANIMALS, COLOURS, DAYS, Dice, FOOD, NATURAL_COLOURS, NUMBERS, OBJECTS, OPPOSITES, OTHER_PLURALS, PEOPLE, PLACES,
    WORKERS, a, list,
};
use halfbyte::quickstart::Task;
use serde_json::json;
use std::collections::HashSet;

fn task(instruction: impl Into<String>, input: impl Into<String>, output: impl Into<String>) -> Task {
    Task { instruction: instruction.into(), input: input.into(), output: output.into() }
}

/// Training rows and held-out rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tasks {
    /// For training.
    pub train: Vec<Task>,
    /// For evaluation; none of these questions is in `train`.
    pub held_out: Vec<Task>,
}

/// The instruction set. It is the same on every machine.
pub fn tasks() -> Tasks {
    let mut dice = Dice::new(7);
    let mut tasks = Tasks { train: Vec::new(), held_out: Vec::new() };
    for facts in facts() {
        // Every fifth fact is held out, in all its wordings.
        let first = dice.below(5);
        for (i, wordings) in facts.into_iter().enumerate() {
            let held_out = (i + first).is_multiple_of(5);
            if held_out {
                let one = dice.below(wordings.len());
                tasks.held_out.extend(wordings.into_iter().nth(one));
            } else {
                tasks.train.extend(wordings);
            }
        }
    }
    // Of the facts, what makes up two thirds of the rows to come.
    tasks.train = dice.several(&tasks.train, 360).into_iter().cloned().collect();
    tasks.held_out = dice.several(&tasks.held_out, 30).into_iter().cloned().collect();
    let mut seen = HashSet::new();
    for (ask, train, held_out) in READING {
        let mut rows = Vec::new();
        while rows.len() < train + held_out {
            let row = ask(&mut dice);
            if seen.insert((row.instruction.clone(), row.input.clone())) {
                rows.push(row);
            }
        }
        tasks.held_out.extend(rows.split_off(train));
        tasks.train.extend(rows);
    }
    tasks.train = dice.several(&tasks.train, tasks.train.len()).into_iter().cloned().collect();
    tasks
}

/// A row as the text that the tokenizer learns from.
pub fn text(row: &Task) -> String {
    let input = if row.input.is_empty() { String::new() } else { format!("\n### Input: {}", row.input) };
    format!("### Question: {}{input}\n### Answer: {}", row.instruction, row.output)
}

/// Rows as JSON lines.
pub fn jsonl(rows: &[Task]) -> String {
    let line =
        |t: &Task| json!({"instruction": t.instruction, "input": t.input, "output": t.output}).to_string() + "\n";
    rows.iter().map(line).collect()
}

/// Questions about facts of the world: groups of facts, each fact with its wordings.
fn facts() -> Vec<Vec<Vec<Task>>> {
    let opposites = OPPOSITES.iter().map(|&(x, y)| {
        let both = [(x, y), (y, x)].into_iter();
        both.flat_map(|(x, y)| {
            [task(format!("What is the opposite of {x}?"), "", y), task("Give the opposite of the word.", x, y)]
        })
        .collect()
    });
    let animals = ANIMALS.iter().map(|x| (x.name, x.plural));
    let food = FOOD.iter().map(|(one, many, _)| (*one, *many));
    let plurals = OBJECTS.into_iter().chain(OTHER_PLURALS).chain(animals).chain(food).map(|(one, many)| {
        vec![task("Write the plural of the word.", one, many), task(format!("What is the plural of {one}?"), "", many)]
    });
    let colours = NATURAL_COLOURS.iter().map(|&(thing, colour)| {
        vec![task(format!("What colour is {thing}?"), "", colour), task("Name the colour.", thing, colour)]
    });
    let days = (0..7).map(|i| {
        let (day, after) = (DAYS[i], DAYS[(i + 1) % 7]);
        vec![task(format!("Which day comes after {day}?"), "", after), task("Name the next day.", day, after)]
    });
    let sums = (1..=9).flat_map(|x| (1..=10 - x).map(move |y| (x, y))).map(|(x, y)| {
        let (m, n, sum) = (NUMBERS[x], NUMBERS[y], NUMBERS[x + y]);
        vec![task(format!("How much is {m} and {n}?"), "", sum), task("Add the numbers.", format!("{m}, {n}"), sum)]
    });
    let kinds = kinds_of_things().into_iter().map(|(word, kind)| vec![task("What kind of thing is this?", word, kind)]);
    let workers = WORKERS.iter().map(|&(who, does, _, what)| vec![task(format!("Who {does} {what}?"), "", a(who))]);
    let sounds = ANIMALS.iter().map(|x| vec![task(format!("What does {} say?", a(x.name)), "", x.sound)]);
    let young = ANIMALS.iter().map(|x| vec![task(format!("What is a young {} called?", x.name), "", a(x.young))]);
    let homes = ANIMALS.iter().map(|x| vec![task(format!("Where does {} live?", a(x.name)), "", x.home)]);
    vec![
        opposites.collect(),
        plurals.collect(),
        colours.collect(),
        days.collect(),
        sums.collect(),
        kinds.collect(),
        workers.collect(),
        sounds.collect(),
        young.collect(),
        homes.collect(),
    ]
}

/// Asks about a text that comes with the question.
type Ask = fn(&mut Dice) -> Task;

/// Questions whose answer stands in the input: rows for training, rows held out.
const READING: [(Ask, usize, usize); 7] = [
    (who, 70, 5),
    (colour, 70, 5),
    (place, 70, 5),
    (yes_or_no, 80, 5),
    (count, 60, 4),
    (ends, 50, 3),
    (backwards, 50, 3),
];

fn who(dice: &mut Dice) -> Task {
    let (people, things, colours) = (dice.several(&PEOPLE, 2), dice.several(&OBJECTS, 2), dice.several(&COLOURS, 2));
    let i = dice.below(2);
    task(format!("Who has the {}?", things[i].0), owners(&people, &things, &colours), people[i].0)
}

fn colour(dice: &mut Dice) -> Task {
    let (people, things, colours) = (dice.several(&PEOPLE, 2), dice.several(&OBJECTS, 2), dice.several(&COLOURS, 2));
    let i = dice.below(2);
    task(format!("What colour is the {}?", things[i].0), owners(&people, &things, &colours), *colours[i])
}

type Person = (&'static str, &'static str, &'static str);

fn owners(people: &[&Person], things: &[&(&str, &str)], colours: &[&&str]) -> String {
    let one = |i: usize| format!("{} has {} {}.", people[i].0, a(colours[i]), things[i].0);
    format!("{} {}", one(0), one(1))
}

fn place(dice: &mut Dice) -> Task {
    let (people, places) = (dice.several(&PEOPLE, 2), dice.several(&PLACES, 2));
    let i = dice.below(2);
    let text = format!("{} went to the {}. {} is at the {}.", people[0].0, places[0], people[1].0, places[1]);
    task(format!("Where is {}?", people[i].0), text, format!("at the {}", places[i]))
}

fn yes_or_no(dice: &mut Dice) -> Task {
    let (people, things, colours) = (dice.several(&PEOPLE, 2), dice.several(&OBJECTS, 2), dice.several(&COLOURS, 2));
    let (i, j) = (dice.below(2), dice.below(2));
    let question = format!("Is the {} {}?", things[i].0, colours[j]);
    task(question, owners(&people, &things, &colours), if i == j { "yes" } else { "no" })
}

/// Names of things of one sort.
fn things(dice: &mut Dice, n: usize) -> Vec<String> {
    match dice.below(3) {
        0 => dice.several(&OBJECTS, n).iter().map(|o| o.0.into()).collect(),
        1 => dice.several(&ANIMALS, n).iter().map(|x| x.name.into()).collect(),
        _ => dice.several(&FOOD, n).iter().map(|f| f.0.into()).collect(),
    }
}

fn count(dice: &mut Dice) -> Task {
    let n = 2 + dice.below(4);
    let articles: Vec<String> = things(dice, n).iter().map(|t| a(t)).collect();
    task("How many things are in the list?", list(&articles), NUMBERS[n])
}

fn ends(dice: &mut Dice) -> Task {
    let n = 3 + dice.below(2);
    let words = things(dice, n);
    let (which, word) = if dice.chance(50) { ("first", &words[0]) } else { ("last", &words[n - 1]) };
    task(format!("Which word is the {which} one?"), words.join(", "), word)
}

fn backwards(dice: &mut Dice) -> Task {
    let mut words = things(dice, 3);
    let text = words.join(", ");
    words.reverse();
    task("Write the list backwards.", text, words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_rows_are_these() {
        let Tasks { train, held_out } = tasks();
        assert!(jsonl(&train) == include_str!("../../assets/quickstart/train.jsonl"));
        assert!(jsonl(&held_out) == include_str!("../../assets/quickstart/held_out.jsonl"));
    }

    #[test]
    fn no_held_out_question_is_trained_on() {
        let Tasks { train, held_out } = tasks();
        let asked = |t: &Task| (t.instruction.clone(), t.input.clone());
        let trained: HashSet<_> = train.iter().map(asked).collect();
        assert!(held_out.iter().all(|t| !trained.contains(&asked(t))));
        assert!((600..=1000).contains(&train.len()) && (50..=70).contains(&held_out.len()));
    }
}
