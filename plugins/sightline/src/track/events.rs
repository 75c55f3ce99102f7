//! Action signals and upstream events: the doors prompts and questions come in by.

use std::sync::{LazyLock, PoisonError};

use gst::{glib, prelude::*, subclass::prelude::*};
use sightline_core::{ObjectId, ValueError};

use super::{
    draft::Request,
    hub::{COMMANDS, Command},
    imp::SightlineTrack,
    notice::Notice,
    prompts::{self, Parsed},
    questions,
    talk::Question,
};
use crate::query_record::QueryRecord;

/// The action signals.
pub(super) fn signals() -> &'static [glib::subclass::Signal] {
    static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
        let element =
            |values: &[glib::Value]| values.first().and_then(|v| v.get::<super::SightlineTrack>().ok());
        let structure =
            |values: &[glib::Value], at: usize| values.get(at).and_then(|v| v.get::<gst::Structure>().ok());
        let number = |values: &[glib::Value]| values.get(1).and_then(|v| v.get::<u32>().ok()).unwrap_or(0);
        vec![
            glib::subclass::Signal::builder("add-object")
                .param_types([gst::Structure::static_type()])
                .return_type::<u32>()
                .action()
                .class_handler(move |values| {
                    let id =
                        element(values).and_then(|e| e.imp().add_object(structure(values, 1).as_deref()));
                    Some(id.map_or(0, |id| id.0).to_value())
                })
                .build(),
            glib::subclass::Signal::builder("correct-object")
                .param_types([u32::static_type(), gst::Structure::static_type()])
                .return_type::<bool>()
                .action()
                .class_handler(move |values| {
                    let prompt = structure(values, 2);
                    let done = element(values)
                        .is_some_and(|e| e.imp().correct_object(Some(number(values)), prompt.as_deref()));
                    Some(done.to_value())
                })
                .build(),
            glib::subclass::Signal::builder("remove-object")
                .param_types([u32::static_type()])
                .return_type::<bool>()
                .action()
                .class_handler(move |values| {
                    let id = ObjectId(number(values));
                    Some(element(values).is_some_and(|e| e.imp().send(Command::Remove(id))).to_value())
                })
                .build(),
            glib::subclass::Signal::builder("clear")
                .return_type::<bool>()
                .action()
                .class_handler(move |values| {
                    Some(element(values).is_some_and(|e| e.imp().send(Command::Clear)).to_value())
                })
                .build(),
            glib::subclass::Signal::builder("query")
                .param_types([String::static_type(), String::static_type(), f64::static_type()])
                .return_type::<u64>()
                .action()
                .class_handler(move |values| {
                    let text =
                        |at: usize| values.get(at).and_then(|v| v.get::<String>().ok()).unwrap_or_default();
                    let every = values.get(3).and_then(|v| v.get::<f64>().ok());
                    let parsed = questions::parse(&text(1), &text(2), every);
                    let id = element(values).and_then(|e| e.imp().put(parsed));
                    Some(id.unwrap_or(0).to_value())
                })
                .build(),
            glib::subclass::Signal::builder("withdraw")
                .param_types([u64::static_type()])
                .return_type::<bool>()
                .action()
                .class_handler(move |values| {
                    let id = values.get(1).and_then(|v| v.get::<u64>().ok()).unwrap_or(0);
                    Some(element(values).is_some_and(|e| e.imp().send(Command::Withdraw(id))).to_value())
                })
                .build(),
        ]
    });
    SIGNALS.as_ref()
}

/// Gives an id to every prompt that came without; those that were asked for are taken first.
pub(super) fn number(parsed: Vec<Parsed>, last_id: &mut u32) -> Vec<Request> {
    let mut taken: Vec<u32> = parsed.iter().filter_map(|prompt| prompt.id.map(|id| id.0)).collect();
    let requests = parsed
        .into_iter()
        .map(|prompt| {
            let id = prompt.id.unwrap_or_else(|| {
                let mut next = *last_id + 1;
                while taken.contains(&next) {
                    next += 1;
                }
                taken.push(next);
                *last_id = next;
                ObjectId(next)
            });
            prompt.into_request(id, false)
        })
        .collect();
    *last_id = taken.into_iter().fold(*last_id, u32::max);
    requests
}

impl SightlineTrack {
    /// `add-object`: the id, or nothing when it was refused (and said so).
    pub(super) fn add_object(&self, structure: Option<&gst::StructureRef>) -> Option<ObjectId> {
        let parsed = self.parse(structure)?;
        let request = {
            let state = self.state();
            let mut last_id = state.last_id.lock().unwrap_or_else(PoisonError::into_inner);
            number(vec![parsed], &mut last_id).pop()?
        };
        let id = request.id;
        self.send(Command::Prompt(request)).then_some(id)
    }

    /// `correct-object`: whether it went to the worker; that the object is tracked is found out there.
    pub(super) fn correct_object(&self, id: Option<u32>, structure: Option<&gst::StructureRef>) -> bool {
        let Some(parsed) = self.parse(structure) else { return false };
        let Some(id) = id.filter(|id| *id > 0).map(ObjectId).or(parsed.id) else {
            let reason = "correction: expected an id, got none".to_string();
            self.tell(Notice::Refused { id: None, at: parsed.at, reason });
            return false;
        };
        self.send(Command::Prompt(parsed.into_request(id, true)))
    }

    fn parse(&self, structure: Option<&gst::StructureRef>) -> Option<Parsed> {
        let parsed = match structure {
            Some(structure) => prompts::parse_structure(structure).map_err(|error| error.to_string()),
            None => Err("prompt: expected a structure, got none".to_string()),
        };
        if parsed.is_err()
            && let Some(hub) = self.hub()
        {
            hub.count_prompt(false);
        }
        parsed.map_err(|reason| self.tell(Notice::Refused { id: None, at: None, reason })).ok()
    }

    /// Puts a question: its id, or nothing when it was refused (and said so).
    pub(super) fn put(&self, parsed: Result<questions::Parsed, ValueError>) -> Option<u64> {
        match parsed {
            Ok((what, every)) => {
                let id = {
                    let mut state = self.state();
                    state.last_query += 1;
                    state.last_query
                };
                self.send(Command::Question(Question { id, what, every, object: None })).then_some(id)
            }
            Err(error) => {
                let record = QueryRecord {
                    state: "refused".into(),
                    reason: error.to_string(),
                    ..QueryRecord::default()
                };
                self.tell(Notice::Query(Box::new(record)));
                None
            }
        }
    }

    /// Sends a command, and says so if there was no room.
    pub(super) fn send(&self, command: Command) -> bool {
        let sent = self.command(command.clone());
        if !sent {
            self.refuse_full(&command);
        }
        sent
    }

    pub(super) fn refuse_full(&self, command: &Command) {
        let (id, at) = match command {
            Command::Prompt(request) => (Some(request.id), request.at),
            Command::Remove(id) => (Some(*id), None),
            Command::Clear | Command::Question(_) | Command::Withdraw(_) => (None, None),
        };
        let reason = format!("commands: expected at most {COMMANDS} waiting for the worker, got one more");
        self.tell(Notice::Refused { id, at, reason });
    }

    /// An upstream custom event; `false` when it is not ours.
    pub(super) fn handle_event(&self, structure: &gst::StructureRef) -> bool {
        match structure.name().as_str() {
            "sightline/add-object" => {
                self.add_object(Some(structure));
            }
            "sightline/correct-object" => {
                self.correct_object(None, Some(structure));
            }
            "sightline/remove-object" => match prompts::parse_id(structure) {
                Ok(id) => {
                    self.send(Command::Remove(id));
                }
                Err(error) => self.tell(Notice::Refused { id: None, at: None, reason: error.to_string() }),
            },
            "sightline/clear" => {
                self.send(Command::Clear);
            }
            "sightline/query" => {
                self.put(questions::parse_structure(structure));
            }
            "sightline/withdraw" => {
                self.send(Command::Withdraw(structure.get::<u64>("id").unwrap_or(0)));
            }
            _ => return false,
        }
        true
    }
}
