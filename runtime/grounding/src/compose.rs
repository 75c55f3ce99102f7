//! From what is wanted and what was seen to an [`Ask`] the hatch takes.

use std::time::Duration;

use sightline_core::{FrameStamp, ObjectId};

use crate::{
    GroundingError, Kind, Query, QueryId, QueryKind, Turn, album::Crop, hatch::Ask, llm::Image,
    protocol::Sent,
};

/// A picture of the scene as it is sent.
#[derive(Debug, Clone)]
pub struct View {
    /// The frame it shows.
    pub stamp: FrameStamp,
    /// Width and height of that frame.
    pub picture_px: [u32; 2],
    /// The part of it that is shown: `[x0, y0, x1, y1]`, the latter two exclusive.
    pub part_px: [u32; 4],
    /// The part, scaled, numbers drawn on it.
    pub image: Image,
    /// The numbers drawn.
    pub marks: Vec<ObjectId>,
}

/// Puts queries together: gives them ids and times, chooses pictures within the limit, binds numbers to objects.
#[derive(Debug, Clone)]
pub struct Composer {
    next: u64,
    patience: Duration,
    grace: Duration,
    max_images: usize,
}

impl Composer {
    /// Queries are wanted within `patience` and of use for `grace` longer; a request has at most `max_images` pictures
    /// (at least 1). Ids begin at 1.
    pub fn new(patience: Duration, grace: Duration, max_images: usize) -> Self {
        Self { next: 1, patience, grace, max_images: max_images.max(1) }
    }

    /// Where is it? Boxes in the answer belong to the view's frame.
    ///
    /// # Errors
    /// `Kind::Request` when the view does not fit its frame; so below.
    pub fn find(
        &mut self,
        phrase: impl Into<String>,
        view: View,
        now: Duration,
    ) -> Result<Ask, GroundingError> {
        let kind = QueryKind::Find { phrase: phrase.into() };
        self.compose(kind, vec![view], Vec::new(), now)
    }

    /// What happens? Of captions that wait the newest counts.
    ///
    /// # Errors
    /// As [`Composer::find`], and when there is no view or their geometry differs.
    pub fn describe_scene(&mut self, views: Vec<View>, now: Duration) -> Result<Ask, GroundingError> {
        let ask = self.compose(QueryKind::Describe { object: None }, views, Vec::new(), now)?;
        Ok(Ask { group: Some(0), ..ask })
    }

    /// What is this object and what does it do? `crops` are its close-ups, oldest first.
    ///
    /// # Errors
    /// As [`Composer::find`].
    pub fn describe_object(
        &mut self,
        id: ObjectId,
        view: View,
        crops: Vec<Crop>,
        now: Duration,
    ) -> Result<Ask, GroundingError> {
        let kind = QueryKind::Describe { object: Some(id) };
        let ask = self.compose(kind, vec![view], vec![(id, crops)], now)?;
        Ok(Ask { group: Some(1 + u64::from(id.0)), ..ask })
    }

    /// A question about the scene, or about objects with close-ups of each; `turns` are what was said before.
    ///
    /// # Errors
    /// As [`Composer::describe_scene`].
    pub fn ask(
        &mut self,
        question: impl Into<String>,
        objects: Vec<(ObjectId, Vec<Crop>)>,
        conversation: Option<(u64, Vec<Turn>)>,
        views: Vec<View>,
        now: Duration,
    ) -> Result<Ask, GroundingError> {
        let (conversation, turns) =
            conversation.map_or((None, Vec::new()), |(name, turns)| (Some(name), turns));
        let kind = QueryKind::Ask {
            question: question.into(),
            objects: objects.iter().map(|(id, _)| *id).collect(),
            conversation,
        };
        let ask = self.compose(kind, views, objects, now)?;
        Ok(Ask { turns, ..ask })
    }

    /// Is it so now? One look at a standing condition, on the last of the views.
    ///
    /// # Errors
    /// As [`Composer::describe_scene`].
    pub fn watch(
        &mut self,
        condition: impl Into<String>,
        views: Vec<View>,
        now: Duration,
    ) -> Result<Ask, GroundingError> {
        self.compose(QueryKind::Watch { condition: condition.into() }, views, Vec::new(), now)
    }

    fn compose(
        &mut self,
        kind: QueryKind,
        mut views: Vec<View>,
        objects: Vec<(ObjectId, Vec<Crop>)>,
        now: Duration,
    ) -> Result<Ask, GroundingError> {
        let refuse = |expected: &str, got: String| {
            GroundingError::new(Kind::Request, format_args!("views of a {}", kind.as_str()), expected, got)
        };
        views.drain(..views.len().saturating_sub(self.max_images));
        let Some(last) = views.last() else { return Err(refuse("at least one", "none".into())) };
        let shape = |view: &View| (view.picture_px, view.part_px, view.image.size_px());
        if let Some(other) = views.iter().find(|view| shape(view) != shape(last)) {
            return Err(refuse(
                "the same picture, part and size each",
                format!("{:?} and {:?}", shape(other), shape(last)),
            ));
        }
        let crops = newest(objects, self.max_images - views.len());
        let (picture_px, part_px, sent_px) = shape(last);
        let sent = Sent::new(picture_px, part_px, sent_px)
            .map_err(|error| refuse("a part of its frame", error.to_string()))?
            .with_crops(crops.iter().map(|(id, _)| *id).collect())
            .with_images((crops.len() + views.len()) as u32)
            .with_marks(last.marks.clone());
        let close_ups = crops.into_iter().map(|(_, crop)| (crop.stamp, crop.image));
        let (frames, images): (Vec<_>, Vec<_>) =
            close_ups.chain(views.into_iter().map(|view| (view.stamp, view.image))).unzip();
        let id = QueryId(self.next);
        self.next += 1;
        let query = Query::new(id, kind, frames, now, self.patience, self.grace);
        Ok(Ask { query, images, sent, turns: Vec::new(), group: None })
    }
}

/// At most `limit` close-ups in all, each object's newest first served in turn; objects in their order, oldest first.
fn newest(objects: Vec<(ObjectId, Vec<Crop>)>, limit: usize) -> Vec<(ObjectId, Crop)> {
    let mut taken = vec![0; objects.len()];
    let mut left = limit;
    let most = objects.iter().map(|(_, crops)| crops.len()).max().unwrap_or(0);
    for _ in 0..most {
        for (taken, (_, crops)) in taken.iter_mut().zip(&objects) {
            if left > 0 && *taken < crops.len() {
                *taken += 1;
                left -= 1;
            }
        }
    }
    let kept = objects.into_iter().zip(taken).flat_map(|((id, mut crops), taken)| {
        let crops = crops.split_off(crops.len() - taken);
        crops.into_iter().map(move |crop| (id, crop))
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(10);

    fn stamp(index: u64) -> FrameStamp {
        FrameStamp { index, pts: Some(Duration::from_secs(index)), running_time: None }
    }

    fn image(width: u32, height: u32) -> Image {
        Image::new(width, height, vec![0; (width * height * 3) as usize].into()).unwrap()
    }

    fn view(index: u64) -> View {
        View {
            stamp: stamp(index),
            picture_px: [64, 48],
            part_px: [0, 0, 64, 48],
            image: image(32, 24),
            marks: vec![ObjectId(3), ObjectId(5)],
        }
    }

    fn crops(indices: &[u64]) -> Vec<Crop> {
        let crop = |index: &u64| Crop { stamp: stamp(*index), part_px: [0, 0, 8, 8], image: image(8, 8) };
        indices.iter().map(crop).collect()
    }

    fn composer(max_images: usize) -> Composer {
        Composer::new(Duration::from_secs(1), Duration::from_secs(4), max_images)
    }

    fn frames(ask: &Ask) -> Vec<u64> {
        ask.query.frames.iter().map(|stamp| stamp.index).collect()
    }

    #[test]
    fn close_ups_stand_before_the_scene() {
        let ask = composer(8).describe_object(ObjectId(3), view(9), crops(&[2, 4, 6]), NOW).unwrap();
        assert_eq!(frames(&ask), [2, 4, 6, 9]);
        assert_eq!(ask.query.seed_frame().map(|stamp| stamp.index), Some(9), "boxes belong to the scene");
        assert_eq!((ask.sent.images(), ask.sent.crops().len(), ask.images.len()), (4, 3, 4));
        assert_eq!(ask.images[3].size_px(), ask.sent.sent_px());
        assert_eq!((ask.query.deadline, ask.query.expiry), (11 * NOW / 10, 15 * NOW / 10));
        assert_eq!(ask.group, Some(4));
    }

    #[test]
    fn the_newest_pictures_fit_the_limit() {
        let objects =
            vec![(ObjectId(3), crops(&[1, 2, 3])), (ObjectId(5), crops(&[4])), (ObjectId(7), vec![])];
        for (limit, expected) in [
            (8, &[1, 2, 3, 4, 9][..]),
            (4, &[2, 3, 4, 9]),
            (3, &[3, 4, 9]),
            (2, &[3, 9]),
            (1, &[9]),
            (0, &[9]),
        ] {
            let ask = composer(limit).ask("why?", objects.clone(), None, vec![view(9)], NOW).unwrap();
            assert_eq!(frames(&ask), expected, "{limit}");
        }
        let scene = composer(2).describe_scene(vec![view(1), view(2), view(3)], NOW).unwrap();
        assert_eq!((frames(&scene), scene.group), (vec![2, 3], Some(0)));
    }

    #[test]
    fn kinds_and_turns() {
        let mut composer = composer(4);
        let turns = vec![Turn { question: "q".into(), answer: "a".into() }];
        let asked =
            composer.ask("why?", vec![(ObjectId(5), vec![])], Some((7, turns)), vec![view(1)], NOW).unwrap();
        assert_eq!(asked.turns.len(), 1);
        let QueryKind::Ask { objects, conversation, .. } = &asked.query.kind else { panic!("an ask") };
        assert_eq!((objects.as_slice(), *conversation), (&[ObjectId(5)][..], Some(7)));
        let found = composer.find("the goat", view(1), NOW).unwrap();
        let watched = composer.watch("someone enters", vec![view(1)], NOW).unwrap();
        assert_eq!((found.query.kind.as_str(), watched.query.kind.as_str()), ("find", "watch"));
        assert_eq!([asked.query.id, found.query.id, watched.query.id].map(|id| id.0), [1, 2, 3]);
    }

    #[test]
    fn views_that_do_not_fit_are_refused() {
        let other = View { image: image(16, 12), ..view(2) };
        let outside = View { part_px: [0, 0, 65, 48], ..view(1) };
        for (name, views, words) in [
            ("none", vec![], "views of a describe: expected at least one, got none"),
            (
                "two sizes",
                vec![view(1), other],
                "views of a describe: expected the same picture, part and size",
            ),
            ("outside", vec![outside], "views of a describe: expected a part of its frame"),
        ] {
            let error = composer(4).describe_scene(views, NOW).expect_err(name);
            assert_eq!(error.kind(), Kind::Request, "{name}");
            assert!(error.to_string().starts_with(words), "{name}: {error}");
        }
    }
}
