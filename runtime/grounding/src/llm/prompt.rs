//! What is said to a model so that it answers in a protocol.

use super::Request;
use crate::{
    protocol::{Protocol, Sent},
    query::QueryKind,
};

const JSON: &str = "You look at pictures from a camera. Answer with one JSON object and nothing else: \
{\"text\": string, \"verdict\": true|false|null, \
\"objects\": [{\"label\": string, \"box\": [x0,y0,x1,y1], \"mark\": number|null, \"images\": [first,last]|null}], \
\"spans\": [{\"phrase\": string, \"object\": number|null, \"mark\": number|null}]}. \
Boxes are in thousandths of the last picture's width and height, from its top left corner. \
\"mark\" is the number drawn on an object. \"spans\" ties phrases of \"text\", copied exactly, to an index into \
\"objects\" or to a mark. \"verdict\" answers a yes or no question. Leave out nothing that was asked for, and \
name nothing that cannot be seen: empty lists are good answers.";

/// The system and user text of a query's request; pictures and earlier turns are the caller's to add.
///
/// Where a protocol belongs to one published model, the words are those it was trained on.
pub fn prompt(kind: &QueryKind, protocol: Protocol, sent: &Sent) -> Request {
    let text = match (kind, protocol) {
        (QueryKind::Find { phrase }, Protocol::Json) => {
            format!("Find: {phrase}. Give every object that is meant, none if there is none.")
        }
        (QueryKind::Find { phrase }, Protocol::Qwen) => {
            format!(
                "Locate {phrase}. Output the bounding boxes in JSON format: [{{\"bbox_2d\": [x1, y1, x2, y2], \"label\": ...}}]."
            )
        }
        (QueryKind::Find { phrase }, Protocol::Thousandths) => format!(
            "Locate {phrase}. Output the bounding boxes in JSON format: [{{\"bbox_2d\": [x1, y1, x2, y2], \"label\": ...}}], \
             coordinates normalised to 0-1000."
        ),
        (QueryKind::Find { phrase }, Protocol::RefBox) => {
            format!(
                "Please provide the bounding box coordinates of the region this sentence describes: <ref>{phrase}</ref>"
            )
        }
        (QueryKind::Find { phrase }, Protocol::Videoglamm) => {
            format!(
                "What is {} in this video? Please respond with segmentation masks.",
                phrase.to_lowercase()
            )
        }
        (QueryKind::Find { phrase }, _) => format!("Please find and segment {phrase}."),
        (QueryKind::Describe { object: None }, Protocol::Videoglamm) => {
            "Could you please give me a detailed description of the video? Please respond with interleaved \
             segmentation masks for the corresponding parts of the answer."
                .to_owned()
        }
        (QueryKind::Describe { object: None }, _) => {
            "Describe what happens, in one or two sentences.".to_owned()
        }
        (QueryKind::Describe { object: Some(id) }, _) => {
            format!("Describe object {id} and what it does, in one or two sentences.")
        }
        (QueryKind::Ask { question, .. }, _) => question.clone(),
        (QueryKind::Watch { condition }, _) => {
            format!("Is this so in the last picture: {condition}? Begin your answer with yes or no.")
        }
    };
    let system = match protocol {
        Protocol::Json => JSON,
        // Trained on prompts without one, or with one of the server's chat template.
        Protocol::RefBox | Protocol::Vitron | Protocol::VitronStrict | Protocol::Videoglamm => "",
        _ => "You look at pictures from a camera and answer briefly.",
    };
    let mut request = Request { system: system.to_owned(), text, ..Request::default() };
    if !request.system.is_empty() {
        request.system.push_str(&pictures(sent));
    }
    request
}

/// Which picture is what, and which numbers stand for objects; empty for one picture without numbers.
fn pictures(sent: &Sent) -> String {
    let mut words = String::new();
    let (images, crops) = (sent.images() as usize, sent.crops());
    if images > 1 {
        let order = if crops.is_empty() { ", oldest first" } else { "" };
        words = format!(" There are {images} pictures{order}, numbered from 0.");
    }
    let mut at = 0;
    for run in crops.chunk_by(|a, b| a == b) {
        let (first, last) = (at, at + run.len() - 1);
        at += run.len();
        let id = run[0];
        words.push_str(&match run.len() {
            1 => format!(" Picture {first} is a close-up of object {id}."),
            _ => format!(" Pictures {first} to {last} are close-ups of object {id}, oldest first."),
        });
    }
    if at > 0 && at < images {
        let last = images - 1;
        words.push_str(&match images - at {
            1 => format!(" Picture {at} is the whole scene."),
            _ => format!(" Pictures {at} to {last} are the whole scene, oldest first."),
        });
    }
    if !sent.marks().is_empty() {
        let marks: Vec<String> = sent.marks().iter().map(|id| format!("object {id}")).collect();
        let marks = marks.join(", ");
        words.push_str(&format!(" Drawn outlines bear the numbers of {marks}; call them so."));
    }
    words
}

#[cfg(test)]
mod tests {
    use sightline_core::ObjectId;

    use super::*;

    #[test]
    fn the_users_words_arrive_in_every_protocol() {
        let sent = Sent::whole([64, 64], [64, 64]).unwrap().with_images(2).with_marks(vec![ObjectId(3)]);
        for protocol in Protocol::ALL {
            for (kind, words) in [
                (QueryKind::Find { phrase: "the red car".into() }, "the red car"),
                (QueryKind::Watch { condition: "someone enters".into() }, "someone enters"),
                (QueryKind::Describe { object: Some(ObjectId(3)) }, "object 3"),
                (QueryKind::Ask { question: "why?".into(), objects: Vec::new(), conversation: None }, "why?"),
            ] {
                let request = prompt(&kind, protocol, &sent);
                assert!(request.text.contains(words), "{protocol}: {}", request.text);
                let told = request.system.contains("2 pictures") && request.system.contains("object 3");
                assert!(told || request.system.is_empty(), "{protocol}: {}", request.system);
            }
        }
    }

    #[test]
    fn every_picture_is_introduced() {
        let sent = Sent::whole([64, 64], [64, 64]).unwrap();
        let crops = [3, 3, 3, 5].map(ObjectId).to_vec();
        let one = sent.clone().with_marks(vec![ObjectId(3)]);
        let object = sent.clone().with_crops(crops).with_images(5).with_marks(vec![ObjectId(3), ObjectId(5)]);
        let scenes = sent.clone().with_crops(vec![ObjectId(7)]).with_images(3);
        for (sent, expected) in [
            (&sent, ""),
            (&one, " Drawn outlines bear the numbers of object 3; call them so."),
            (
                &object,
                " There are 5 pictures, numbered from 0. Pictures 0 to 2 are close-ups of object 3, oldest first. \
                 Picture 3 is a close-up of object 5. Picture 4 is the whole scene. \
                 Drawn outlines bear the numbers of object 3, object 5; call them so.",
            ),
            (
                &scenes,
                " There are 3 pictures, numbered from 0. Picture 0 is a close-up of object 7. \
                 Pictures 1 to 2 are the whole scene, oldest first.",
            ),
        ] {
            assert_eq!(pictures(sent), expected);
        }
    }
}
