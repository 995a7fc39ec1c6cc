//! The small closed world of the quickstart's texts: its people and things, and the facts about them.
//! These tables contain all facts that the model can learn.

/// People, and the pronouns that go with them.
pub const PEOPLE: [(&str, &str, &str); 16] = [
    ("Anna", "she", "her"),
    ("Ben", "he", "his"),
    ("Clara", "she", "her"),
    ("David", "he", "his"),
    ("Emma", "she", "her"),
    ("Finn", "he", "his"),
    ("Grace", "she", "her"),
    ("Hugo", "he", "his"),
    ("Ida", "she", "her"),
    ("Jack", "he", "his"),
    ("Lena", "she", "her"),
    ("Max", "he", "his"),
    ("Nora", "she", "her"),
    ("Oscar", "he", "his"),
    ("Rosa", "she", "her"),
    ("Tom", "he", "his"),
];

/// An animal: its name, the plural, what it says, its young, where it lives.
pub struct Animal {
    /// "cow".
    pub name: &'static str,
    /// "cows".
    pub plural: &'static str,
    /// "moo".
    pub sound: &'static str,
    /// "calf".
    pub young: &'static str,
    /// "on a farm".
    pub home: &'static str,
}

const fn animal(
    name: &'static str,
    plural: &'static str,
    sound: &'static str,
    young: &'static str,
    home: &'static str,
) -> Animal {
    Animal { name, plural, sound, young, home }
}

/// The animals.
pub const ANIMALS: [Animal; 16] = [
    animal("cow", "cows", "moo", "calf", "on a farm"),
    animal("dog", "dogs", "woof", "puppy", "in a kennel"),
    animal("cat", "cats", "meow", "kitten", "in a house"),
    animal("duck", "ducks", "quack", "duckling", "on a pond"),
    animal("sheep", "sheep", "baa", "lamb", "in a field"),
    animal("hen", "hens", "cluck", "chick", "in a barn"),
    animal("horse", "horses", "neigh", "foal", "in a stable"),
    animal("pig", "pigs", "oink", "piglet", "in a sty"),
    animal("lion", "lions", "roar", "cub", "on the plain"),
    animal("goose", "geese", "honk", "gosling", "by a lake"),
    animal("frog", "frogs", "croak", "tadpole", "in a swamp"),
    animal("owl", "owls", "hoot", "owlet", "in a tree"),
    animal("wolf", "wolves", "howl", "pup", "in the forest"),
    animal("goat", "goats", "bleat", "kid", "on a hill"),
    animal("bear", "bears", "growl", "cub", "in a cave"),
    animal("mouse", "mice", "squeak", "pup", "in a hole"),
];

/// Things to own, carry and count: one, several.
pub const OBJECTS: [(&str, &str); 20] = [
    ("ball", "balls"),
    ("hat", "hats"),
    ("cup", "cups"),
    ("book", "books"),
    ("box", "boxes"),
    ("kite", "kites"),
    ("lamp", "lamps"),
    ("bell", "bells"),
    ("coat", "coats"),
    ("boat", "boats"),
    ("drum", "drums"),
    ("key", "keys"),
    ("bag", "bags"),
    ("chair", "chairs"),
    ("spoon", "spoons"),
    ("doll", "dolls"),
    ("brush", "brushes"),
    ("knife", "knives"),
    ("dish", "dishes"),
    ("pen", "pens"),
];

/// Fruit and vegetables: one, several, which of the two.
pub const FOOD: [(&str, &str, &str); 12] = [
    ("apple", "apples", "fruit"),
    ("pear", "pears", "fruit"),
    ("plum", "plums", "fruit"),
    ("cherry", "cherries", "fruit"),
    ("lemon", "lemons", "fruit"),
    ("banana", "bananas", "fruit"),
    ("berry", "berries", "fruit"),
    ("carrot", "carrots", "vegetable"),
    ("tomato", "tomatoes", "vegetable"),
    ("potato", "potatoes", "vegetable"),
    ("onion", "onions", "vegetable"),
    ("bean", "beans", "vegetable"),
];

/// Plurals that are not told by the tables above.
pub const OTHER_PLURALS: [(&str, &str); 10] = [
    ("child", "children"),
    ("man", "men"),
    ("woman", "women"),
    ("foot", "feet"),
    ("tooth", "teeth"),
    ("leaf", "leaves"),
    ("fish", "fish"),
    ("baby", "babies"),
    ("house", "houses"),
    ("tree", "trees"),
];

/// The colours.
pub const COLOURS: [&str; 10] = ["red", "blue", "green", "yellow", "white", "black", "brown", "orange", "pink", "grey"];

/// What has a colour by nature.
pub const NATURAL_COLOURS: [(&str, &str); 20] = [
    ("grass", "green"),
    ("snow", "white"),
    ("coal", "black"),
    ("the sky", "blue"),
    ("the sea", "blue"),
    ("milk", "white"),
    ("chocolate", "brown"),
    ("wood", "brown"),
    ("a banana", "yellow"),
    ("a lemon", "yellow"),
    ("a tomato", "red"),
    ("a cherry", "red"),
    ("a carrot", "orange"),
    ("a pig", "pink"),
    ("a mouse", "grey"),
    ("a frog", "green"),
    ("a leaf", "green"),
    ("a bear", "brown"),
    ("the sun", "yellow"),
    ("salt", "white"),
];

/// Opposites, each true both ways.
pub const OPPOSITES: [(&str, &str); 24] = [
    ("big", "small"),
    ("hot", "cold"),
    ("fast", "slow"),
    ("up", "down"),
    ("happy", "sad"),
    ("old", "new"),
    ("day", "night"),
    ("open", "closed"),
    ("full", "empty"),
    ("wet", "dry"),
    ("long", "short"),
    ("hard", "soft"),
    ("light", "dark"),
    ("loud", "quiet"),
    ("high", "low"),
    ("early", "late"),
    ("clean", "dirty"),
    ("strong", "weak"),
    ("left", "right"),
    ("near", "far"),
    ("rich", "poor"),
    ("thick", "thin"),
    ("good", "bad"),
    ("first", "last"),
];

/// The week.
pub const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Numbers, at their own index.
pub const NUMBERS: [&str; 13] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];

/// Where people go.
pub const PLACES: [&str; 10] =
    ["park", "school", "market", "river", "garden", "shop", "forest", "hill", "beach", "kitchen"];

/// Who makes or does what: the worker, the verb in its two forms, its object.
pub const WORKERS: [(&str, &str, &str, &str); 10] = [
    ("baker", "bakes", "bake", "bread"),
    ("farmer", "grows", "grow", "corn"),
    ("tailor", "sews", "sew", "clothes"),
    ("painter", "paints", "paint", "pictures"),
    ("singer", "sings", "sing", "songs"),
    ("builder", "builds", "build", "walls"),
    ("cook", "makes", "make", "soup"),
    ("writer", "writes", "write", "stories"),
    ("fisher", "catches", "catch", "fish"),
    ("driver", "drives", "drive", "trucks"),
];

/// The noun with its article.
pub fn a(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// The text with a capital first letter.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// "x, y and z".
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// A deterministic source of choices (SplitMix64): the same seed gives the same texts on every machine.
pub struct Dice(u64);

impl Dice {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `n` (0 for `n` = 0).
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // The high half of a product: n is tiny, so the bias is below anything that shows.
        (((u128::from(z ^ (z >> 31))) * n as u128) >> 64) as usize
    }

    /// One of `items`, which are at least one.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `n` different ones of `items` in a random order (all of them if there are fewer).
    pub fn several<'a, T>(&mut self, items: &'a [T], n: usize) -> Vec<&'a T> {
        let mut all: Vec<&T> = items.iter().collect();
        let n = n.min(all.len());
        for i in 0..n {
            let j = i + self.below(all.len() - i);
            all.swap(i, j);
        }
        all.truncate(n);
        all
    }

    /// True `percent` times out of a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
