//! Converts instructions and dialogs to the columns of the tutorials' data sets.

use serde_json::{Value, json};

/// One record of an instruction set or of self-chat dialogs.
pub struct Sample {
    /// The questions with their answers.
    turns: Vec<(String, String)>,
    /// The input of the first question, possibly empty.
    input: String,
}

impl Sample {
    /// Reads a record with `instruction`, `input` and `output`, or a Baize dialog in `input`. `None` for any other
    /// record.
    pub fn of(record: &Value) -> Option<Sample> {
        let text = |key: &str| record[key].as_str().map(String::from);
        if let (Some(instruction), Some(output)) = (text("instruction"), text("output")) {
            return Some(Sample { turns: vec![(instruction, output)], input: text("input").unwrap_or_default() });
        }
        let dialog = text("input")?;
        let turn = |part: &str| {
            let (question, answer) = part.split_once("[|AI|]")?;
            Some((question.trim().to_string(), answer.trim().to_string()))
        };
        let turns: Vec<_> = dialog.split("[|Human|]").skip(1).filter_map(turn).collect();
        (!turns.is_empty()).then_some(Sample { turns, input: String::new() })
    }

    /// The record that the recipe called `recipe` expects.
    pub fn record(&self, recipe: &str) -> Value {
        let first = &self.turns[0];
        let question = if self.input.is_empty() { first.0.clone() } else { format!("{}\n{}", first.0, self.input) };
        let questions = std::iter::once(&question).chain(self.turns.iter().skip(1).map(|(question, _)| question));
        let turns = questions.zip(self.turns.iter().map(|(_, answer)| answer));
        match recipe {
            "a-mistral-chat" => {
                let turns: Vec<String> = turns.map(|(q, a)| format!("[INST] {q}\n[/INST] {a}")).collect();
                let system = "The conversation between Human and AI assisatance named Gathnex";
                json!({"chat_sample": format!("{system} {}", turns.join("\n")), "dataset_origin": "own"})
            }
            "b-mixtral-instructions" => {
                let preamble = "Below is an instruction that describes a task. \
                                Write a response that appropriately completes the request.";
                let prompt = format!("{preamble}\n\n### Instruction\n{question}\n\n### Response\n");
                json!({"prompt": prompt, "response": first.1, "source": "own"})
            }
            "c-mistral-code" => json!({"instruction": first.0, "input": self.input, "output": first.1}),
            "d-llama-korean" => {
                let turns: Vec<String> = turns.map(|(q, a)| format!("<usr> {q}\n<bot> {a}")).collect();
                json!({"source": "own", "text": turns.join("\n")})
            }
            _ => panic!("no tutorial is called {recipe}"),
        }
    }
}
