//! The earlier turns of a conversation, bounded.

use std::collections::VecDeque;

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The user's words.
    pub question: String,
    /// The model's.
    pub answer: String,
}

impl Turn {
    fn bytes(&self) -> usize {
        self.question.len() + self.answer.len()
    }
}

/// The newest turns of a conversation: at most so many, of at most so many bytes together. The oldest go first, whole.
#[derive(Debug, Clone)]
pub struct History {
    max_turns: usize,
    max_bytes: usize,
    turns: VecDeque<Turn>,
}

impl History {
    /// An empty one.
    pub fn new(max_turns: usize, max_bytes: usize) -> Self {
        Self { max_turns, max_bytes, turns: VecDeque::new() }
    }

    /// Adds a turn. One that is too long by itself is not kept, and neither is what came before it: a conversation
    /// with a hole reads as something that was not said.
    pub fn push(&mut self, turn: Turn) {
        self.turns.push_back(turn);
        let mut bytes: usize = self.turns.iter().map(Turn::bytes).sum();
        while self.turns.len() > self.max_turns || bytes > self.max_bytes {
            let Some(oldest) = self.turns.pop_front() else { break };
            bytes -= oldest.bytes();
        }
    }

    /// The turns kept, oldest first.
    pub fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.turns.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(history: &History) -> Vec<&str> {
        history.turns().map(|turn| turn.question.as_str()).collect()
    }

    #[test]
    fn the_oldest_turns_go_first() {
        let turn =
            |question: &str, bytes: usize| Turn { question: question.into(), answer: "x".repeat(bytes) };
        let mut history = History::new(2, 20);
        for name in ["a", "b", "c"] {
            history.push(turn(name, 4));
        }
        assert_eq!(kept(&history), ["b", "c"], "by number");
        history.push(turn("d", 15));
        assert_eq!(kept(&history), ["d"], "by bytes");
        history.push(turn("e", 100));
        assert!(kept(&history).is_empty(), "too long by itself");
    }
}
