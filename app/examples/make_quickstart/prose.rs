//! Generates the training text of the quickstart's base model: short passages of plain prose about the world.
//!
//! The passages tell facts, tell stories and let people ask and answer, always in sentences: the model learns English
//! and the world, and nothing of the form in which `tasks` will ask.

use super::world::{
    ANIMALS, Animal, COLOURS, DAYS, Dice, FOOD, NATURAL_COLOURS, NUMBERS, OBJECTS, OPPOSITES, OTHER_PLURALS, PEOPLE,
    PLACES, WORKERS, a, capital, list,
};

/// One passage.
type Passage = fn(&mut Dice) -> String;

/// The kinds of passage, and how often each comes.
const PASSAGES: [(Passage, usize); 14] = [
    (animal, 10),
    (opposites, 12),
    (plurals, 8),
    (natural_colour, 9),
    (week, 8),
    (sums, 12),
    (kinds, 9),
    (worker, 6),
    (owners, 14),
    (places, 12),
    (listing, 12),
    (story, 14),
    (market, 8),
    (weather, 4),
];

/// Passage number `index` of the endless text with this seed.
pub fn passage(seed: u64, index: u64) -> String {
    let mut dice = Dice::new(seed ^ index.wrapping_mul(0xA076_1D64_78BD_642F));
    let total: usize = PASSAGES.iter().map(|(_, weight)| weight).sum();
    let mut at = dice.below(total);
    for (write, weight) in PASSAGES {
        if at < weight {
            return write(&mut dice);
        }
        at -= weight;
    }
    String::new()
}

/// Somebody asks somebody, who answers: in a sentence, or with the one word that matters.
fn dialogue(dice: &mut Dice, question: &str, answer: &str, short: &str) -> String {
    let two = dice.several(&PEOPLE, 2);
    let (x, y) = (two[0].0, two[1].0);
    if dice.chance(30) {
        return format!("{x} asked {y}: {question} {y} said: {short}.");
    }
    let question = capital(question);
    let answer = capital(answer);
    match dice.below(5) {
        0 => format!("\"{question}\" asked {x}. \"{},\" said {y}.", answer.trim_end_matches('.')),
        1 => format!("{x} asked {y}, \"{question}\" \"{},\" was the answer.", answer.trim_end_matches('.')),
        2 => format!("{x} wanted to know something. \"{question}\" {y} knew it. \"{answer}\""),
        3 => format!("The teacher asked, \"{question}\" {x} said, \"{answer}\" That was right."),
        _ => format!("\"{question}\" said {x}. {y} thought about it and said, \"{answer}\""),
    }
}

fn animal(dice: &mut Dice) -> String {
    let Animal { name, plural, sound, young, home } = dice.pick(&ANIMALS);
    let the = capital(&a(name));
    let mut facts = vec![
        match dice.below(3) {
            0 => format!("{the} says {sound}."),
            1 => format!("When {} is hungry, it says {sound}.", a(name)),
            _ => format!("The sound of {} is {sound}.", a(name)),
        },
        match dice.below(3) {
            0 => format!("{the} lives {home}."),
            1 => format!("{} live {home}.", capital(plural)),
            _ => format!("The home of the {name} is {home}."),
        },
        match dice.below(3) {
            0 => format!("A young {name} is called {}.", a(young)),
            1 => format!("The child of {} is {}.", a(name), a(young)),
            _ => format!("{} is a young {name}.", capital(&a(young))),
        },
        format!("One {name}, two {plural}."),
        format!("{the} is an animal."),
        match dice.below(3) {
            0 => dialogue(dice, &format!("what does {} say?", a(name)), &format!("it says {sound}."), sound),
            1 => dialogue(dice, &format!("where does {} live?", a(name)), &format!("it lives {home}."), home),
            _ => dialogue(
                dice,
                &format!("what is a young {name} called?"),
                &format!("it is called {}.", a(young)),
                &a(young),
            ),
        },
    ];
    let keep = 2 + dice.below(4);
    let chosen: Vec<String> = dice.several(&facts, keep).into_iter().cloned().collect();
    facts = chosen;
    facts.join(" ")
}

fn opposites(dice: &mut Dice) -> String {
    let pairs = dice.several(&OPPOSITES, 3);
    let mut out = Vec::new();
    for &&(x, y) in &pairs[..1 + dice.below(3)] {
        let (x, y) = if dice.chance(50) { (x, y) } else { (y, x) };
        out.push(match dice.below(6) {
            0 => format!("The opposite of {x} is {y}."),
            1 => format!("{} is the opposite of {y}.", capital(x)),
            2 => format!("What is not {x} may be {y}."),
            3 => format!("{} and {y} are opposites.", capital(x)),
            4 => format!("When you say {x}, I say {y}."),
            _ => dialogue(dice, &format!("what is the opposite of {x}?"), &format!("the opposite of {x} is {y}."), y),
        });
    }
    out.join(" ")
}

fn plurals(dice: &mut Dice) -> String {
    let animals = ANIMALS.iter().map(|a| (a.name, a.plural));
    let food = FOOD.iter().map(|(one, many, _)| (*one, *many));
    let all: Vec<(&str, &str)> = OBJECTS.into_iter().chain(OTHER_PLURALS).chain(animals).chain(food).collect();
    let chosen = dice.several(&all, 3);
    let mut out = Vec::new();
    for &&(one, many) in &chosen[..1 + dice.below(3)] {
        let n = NUMBERS[2 + dice.below(9)];
        out.push(match dice.below(5) {
            0 => format!("One {one}, {n} {many}."),
            1 => format!("There is one {one} here and there are {n} {many} there."),
            2 => format!("If you have more than one {one}, you have {many}."),
            3 => format!("We say one {one} but many {many}."),
            _ => dialogue(
                dice,
                &format!("what do you call more than one {one}?"),
                &format!("you call them {many}."),
                many,
            ),
        });
    }
    out.join(" ")
}

fn natural_colour(dice: &mut Dice) -> String {
    let chosen = dice.several(&NATURAL_COLOURS, 3);
    let mut out = Vec::new();
    for &&(thing, colour) in &chosen[..1 + dice.below(3)] {
        let other = dice.pick(&COLOURS);
        out.push(match dice.below(6) {
            0 => format!("{} is {colour}.", capital(thing)),
            1 => format!("The colour of {thing} is {colour}."),
            2 => format!("It was as {colour} as {thing}."),
            3 if *other != colour => dialogue(
                dice,
                &format!("is {thing} {other}?"),
                &format!("no, it is not {other}, it is {colour}."),
                "no",
            ),
            3 => dialogue(dice, &format!("is {thing} {colour}?"), &format!("yes, it is {colour}."), "yes"),
            _ => dialogue(dice, &format!("what colour is {thing}?"), &format!("it is {colour}."), colour),
        });
    }
    out.join(" ")
}

fn week(dice: &mut Dice) -> String {
    let at = dice.below(7);
    let (before, day, after) = (DAYS[(at + 6) % 7], DAYS[at], DAYS[(at + 1) % 7]);
    let (name, he, _) = dice.pick(&PEOPLE);
    let (first, second) = (dice.pick(&PLACES), dice.pick(&PLACES));
    match dice.below(6) {
        0 => format!("{after} comes after {day}. {before} comes before {day}."),
        1 => format!("On {day} {name} went to the {first}. The next day, {after}, {he} went to the {second}."),
        2 => format!("Yesterday was {before}, today is {day}, tomorrow will be {after}."),
        3 => dialogue(dice, &format!("which day comes after {day}?"), &format!("after {day} comes {after}."), after),
        4 => {
            dialogue(dice, &format!("which day comes before {day}?"), &format!("before {day} comes {before}."), before)
        }
        _ => format!("It is {day}. {name} waits for tomorrow, because on {after} {he} goes to the {first}."),
    }
}

fn sums(dice: &mut Dice) -> String {
    let x = 1 + dice.below(9);
    let y = 1 + dice.below(10 - x);
    let (m, n, sum) = (NUMBERS[x], NUMBERS[y], NUMBERS[x + y]);
    let (one, many) = *dice.pick(&OBJECTS);
    let (name, he, _) = *dice.pick(&PEOPLE);
    let some = |n: usize| if n == 1 { format!("one {one}") } else { format!("{} {many}", NUMBERS[n]) };
    match dice.below(7) {
        0 => format!("{} and {n} are {sum}.", capital(m)),
        1 => format!("{} plus {n} is {sum}. {} minus {n} is {m}.", capital(m), capital(sum)),
        2 => format!("{name} had {}. {} got {} more. Now {he} has {}.", some(x), capital(he), some(y), some(x + y)),
        3 => format!("{name} had {}. {} gave {} away. Now {he} has {}.", some(x + y), capital(he), some(y), some(x)),
        4 => {
            format!("{} is more than {m}, and {m} is less than {sum}.", capital(sum))
        }
        5 => {
            let count: Vec<String> = (1..=x + y).map(|i| NUMBERS[i].into()).collect();
            format!("{name} can count to {sum}: {}.", count.join(", "))
        }
        _ => dialogue(dice, &format!("how much is {m} and {n}?"), &format!("{m} and {n} are {sum}."), sum),
    }
}

/// Every word that has a kind, with its kind.
pub fn kinds_of_things() -> Vec<(&'static str, &'static str)> {
    let animals = ANIMALS.iter().map(|animal| (animal.name, "animal"));
    let food = FOOD.iter().map(|(name, _, kind)| (*name, *kind));
    let colours = COLOURS.iter().filter(|c| **c != "orange").map(|c| (*c, "colour"));
    let days = DAYS.iter().map(|day| (*day, "day"));
    let numbers = NUMBERS.iter().map(|n| (*n, "number"));
    animals.chain(food).chain(colours).chain(days).chain(numbers).collect()
}

/// A word as the subject of a sentence: with an article if its kind is counted in pieces.
fn subject(word: &str, kind: &str) -> String {
    if matches!(kind, "animal" | "fruit" | "vegetable") { a(word) } else { word.into() }
}

fn kinds(dice: &mut Dice) -> String {
    let all = kinds_of_things();
    let chosen = dice.several(&all, 3);
    let mut out = Vec::new();
    for &&(word, kind) in &chosen[..1 + dice.below(3)] {
        let thing = subject(word, kind);
        out.push(match dice.below(4) {
            0 => format!("{} is {}.", capital(&thing), a(kind)),
            1 => {
                let like: Vec<String> =
                    all.iter().filter(|(w, k)| *k == kind && *w != word).map(|(w, _)| (*w).into()).collect();
                let other = dice.pick(&like);
                format!("{} is {}, and {} is {}, too.", capital(&thing), a(kind), subject(other, kind), a(kind))
            }
            2 => dialogue(dice, &format!("what kind of thing is {thing}?"), &format!("it is {}.", a(kind)), kind),
            _ => {
                let (other_word, other_kind) = *dice.pick(&all);
                if other_kind == kind {
                    format!("{} is {}.", capital(&thing), a(kind))
                } else {
                    let other = subject(other_word, other_kind);
                    format!("{} is {}, but {other} is {}.", capital(&thing), a(kind), a(other_kind))
                }
            }
        });
    }
    out.join(" ")
}

fn worker(dice: &mut Dice) -> String {
    let (who, does, infinitive, what) = *dice.pick(&WORKERS);
    let (name, he, _) = *dice.pick(&PEOPLE);
    let place = dice.pick(&PLACES);
    match dice.below(4) {
        0 => format!("{} {does} {what}.", capital(&a(who))),
        1 => format!("{name} is {}. Every day {he} {does} {what}.", a(who)),
        2 => format!("{name} likes to {infinitive} {what}. One day {he} will be {} near the {place}.", a(who)),
        _ => dialogue(dice, &format!("who {does} {what}?"), &format!("{} {does} {what}.", a(who)), &a(who)),
    }
}

/// Two or three people with a coloured thing each, and what follows from it.
fn owners(dice: &mut Dice) -> String {
    let n = 2 + dice.below(2);
    let people = dice.several(&PEOPLE, n);
    let things = dice.several(&OBJECTS, n);
    let colours = dice.several(&COLOURS, n);
    let told: Vec<String> = (0..n)
        .map(|i| {
            let (who, thing, colour) = (people[i].0, things[i].0, colours[i]);
            match dice.below(3) {
                0 => format!("{who} has {} {thing}.", a(colour)),
                1 => format!("{} {thing} belongs to {who}.", capital(&a(colour))),
                _ => format!("{who} owns {} {thing}.", a(colour)),
            }
        })
        .collect();
    let i = dice.below(n);
    let j = (i + 1 + dice.below(n - 1)) % n;
    let (who, he, thing, colour) = (people[i].0, people[i].1, things[i].0, *colours[i]);
    let (wrong_colour, wrong_thing) = (*colours[j], things[j].0);
    let close = match dice.below(8) {
        0 => format!("So the {thing} is {colour}."),
        1 => format!("The one with the {thing} is {who}."),
        2 => dialogue(dice, &format!("who has the {thing}?"), &format!("{who} has the {thing}."), who),
        3 => dialogue(dice, &format!("what colour is the {thing}?"), &format!("the {thing} is {colour}."), colour),
        4 => dialogue(dice, &format!("what does {who} have?"), &format!("{he} has {} {thing}.", a(colour)), &a(thing)),
        5 => dialogue(dice, &format!("is the {thing} {colour}?"), &format!("yes, it is {colour}."), "yes"),
        6 => dialogue(
            dice,
            &format!("is the {thing} {wrong_colour}?"),
            &format!("no, it is not {wrong_colour}, it is {colour}."),
            "no",
        ),
        _ if dice.chance(50) => {
            dialogue(dice, &format!("does {who} have the {thing}?"), &format!("yes, {he} has the {thing}."), "yes")
        }
        _ => dialogue(
            dice,
            &format!("does {who} have the {wrong_thing}?"),
            &format!("no, {he} has the {thing}, not the {wrong_thing}."),
            "no",
        ),
    };
    format!("{} {close}", told.join(" "))
}

/// People at places.
fn places(dice: &mut Dice) -> String {
    let n = 2 + dice.below(2);
    let people = dice.several(&PEOPLE, n);
    let places = dice.several(&PLACES, n);
    let told: Vec<String> = (0..n)
        .map(|i| match dice.below(3) {
            0 => format!("{} went to the {}.", people[i].0, places[i]),
            1 => format!("{} is at the {}.", people[i].0, places[i]),
            _ => format!("At the {} we see {}.", places[i], people[i].0),
        })
        .collect();
    let i = dice.below(n);
    let j = (i + 1 + dice.below(n - 1)) % n;
    let (who, he, place, wrong) = (people[i].0, people[i].1, places[i], places[j]);
    let close = match dice.below(5) {
        0 => {
            dialogue(dice, &format!("where is {who}?"), &format!("{he} is at the {place}."), &format!("at the {place}"))
        }
        1 => dialogue(dice, &format!("who is at the {place}?"), &format!("{who} is at the {place}."), who),
        2 => dialogue(dice, &format!("is {who} at the {place}?"), &format!("yes, {he} is at the {place}."), "yes"),
        3 => dialogue(
            dice,
            &format!("is {who} at the {wrong}?"),
            &format!("no, {he} is not at the {wrong}, {he} is at the {place}."),
            "no",
        ),
        _ => format!("If you want to talk to {who}, go to the {place}."),
    };
    format!("{} {close}", told.join(" "))
}

/// A list of things: how many, the first, the last, the other way round.
fn listing(dice: &mut Dice) -> String {
    let n = 2 + dice.below(4);
    let things: Vec<String> = match dice.below(3) {
        0 => dice.several(&OBJECTS, n).iter().map(|o| o.0.into()).collect(),
        1 => dice.several(&ANIMALS, n).iter().map(|x| x.name.into()).collect(),
        _ => dice.several(&FOOD, n).iter().map(|f| f.0.into()).collect(),
    };
    let articles: Vec<String> = things.iter().map(|t| a(t)).collect();
    let (name, he, _) = *dice.pick(&PEOPLE);
    let reversed: Vec<String> = things.iter().rev().cloned().collect();
    let (first, last, count) = (&things[0], &reversed[0], NUMBERS[n]);
    let opening = match dice.below(4) {
        0 => format!("{name} saw {}.", list(&articles)),
        1 => format!("On the table there were {}.", list(&articles)),
        2 => format!("{name} drew {}.", list(&articles)),
        _ => format!("{name} said these words: {}.", things.join(", ")),
    };
    let mut more = vec![
        format!("That makes {count} things."),
        format!("The first was the {first} and the last was the {last}."),
        format!("The other way round it is {}.", reversed.join(", ")),
        format!("Then {he} said them backwards: {}.", reversed.join(", ")),
        dialogue(dice, "how many things are there?", &format!("there are {count} things."), count),
        dialogue(dice, "what came first?", &format!("the {first} came first."), first),
        dialogue(dice, "what came last?", &format!("the {last} came last."), last),
    ];
    let keep = 1 + dice.below(2);
    let chosen: Vec<String> = dice.several(&more, keep).into_iter().cloned().collect();
    more = chosen;
    format!("{opening} {}", more.join(" "))
}

fn story(dice: &mut Dice) -> String {
    let two = dice.several(&PEOPLE, 2);
    let ((x, he, his), (y, he2, _)) = (*two[0], *two[1]);
    let objects = dice.several(&OBJECTS, 2);
    let (thing, other) = (objects[0].0, objects[1].0);
    let (colour, place, day) = (dice.pick(&COLOURS), dice.pick(&PLACES), dice.pick(&DAYS));
    let Animal { name: pet, sound, .. } = dice.pick(&ANIMALS);
    let opening = match dice.below(4) {
        0 => format!("On {day} {x} went to the {place} with {his} {colour} {thing}."),
        1 => format!("One day {x} lost {his} {colour} {thing} at the {place}."),
        2 => format!("{x} had {} {thing}. {} liked it very much.", a(colour), capital(he)),
        _ => format!("It was {day}, and {x} was playing at the {place} with {} {thing}.", a(colour)),
    };
    let middle = match dice.below(5) {
        0 => format!("There {he} met {y}, who had {}. They played all day.", a(other)),
        1 => format!("Suddenly {he} heard a {pet}. \"{}!\" it said. {x} was not afraid.", capital(sound)),
        2 => format!("{y} came and asked, \"May I have the {thing}?\" \"Yes,\" said {x}."),
        3 => format!("A {pet} took the {thing} and ran away. {x} was sad."),
        _ => format!("{x} looked for {y}, but {y} was not there. {} had gone home.", capital(he2)),
    };
    let end = match dice.below(5) {
        0 => format!("Then {y} gave {x} {}, and {x} was happy again.", a(other)),
        1 => format!("In the evening they went home and ate {} together.", FOOD[dice.below(FOOD.len())].1),
        2 => format!("{x} put the {thing} in a box and went to sleep."),
        3 => format!("{y} found the {colour} {thing} and gave it back. \"Thank you,\" said {x}."),
        _ => format!("The next day {x} and {y} were good friends."),
    };
    format!("{opening} {middle} {end}")
}

fn market(dice: &mut Dice) -> String {
    let (name, he, _) = *dice.pick(&PEOPLE);
    let goods = dice.several(&FOOD, 2);
    let (x, y) = (2 + dice.below(4), 2 + dice.below(4));
    let (m, n) = (goods[0].1, goods[1].1);
    let day = dice.pick(&DAYS);
    let opening = format!("On {day} {name} went to the market and bought {} {m} and {} {n}.", NUMBERS[x], NUMBERS[y]);
    match dice.below(5) {
        0 => format!("{opening} Then {he} had {} pieces in all.", NUMBERS[x + y]),
        1 if x != y => {
            let more = if x > y { m } else { n };
            let less = if x > y { n } else { m };
            format!("{opening} {} had more {more} than {less}.", capital(he))
        }
        2 => {
            let answer = format!("{he} bought {} {m}.", NUMBERS[x]);
            format!("{opening} {}", dialogue(dice, &format!("how many {m} did {name} buy?"), &answer, NUMBERS[x]))
        }
        3 => {
            let answer = format!("{he} bought {} {n}.", NUMBERS[y]);
            format!("{opening} {}", dialogue(dice, &format!("how many {n} did {name} buy?"), &answer, NUMBERS[y]))
        }
        _ => format!("{opening} {} ate one of the {m} on the way home.", capital(he)),
    }
}

fn weather(dice: &mut Dice) -> String {
    let (day, place) = (dice.pick(&DAYS), dice.pick(&PLACES));
    let (name, he, his) = *dice.pick(&PEOPLE);
    let thing = dice.pick(&OBJECTS).0;
    match dice.below(4) {
        0 => format!("On {day} it rained, and the {place} was wet. {name} stayed at home with {his} {thing}."),
        1 => format!("The sun was hot on {day}. {name} went to the {place}, where it was not so hot."),
        2 => format!("In the night it was cold and dark. In the morning there was snow, and the {place} was white."),
        _ => format!("The wind was strong at the {place}. {name} held {his} {thing}, but {he} was happy."),
    }
}
