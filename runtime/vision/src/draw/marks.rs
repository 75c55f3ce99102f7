//! Set-of-mark (Yang et al., arXiv 2310.11441): every object outlined and numbered, so that a language model can be asked
//! about "object 3" and answer so.

use sightline_core::{ObjectId, Rle};

use super::{Painter, PictureMut, bits::Bits, label_at_scale, label_extent_px, palette};

/// A number covers at most this share of the object it stands in; else it stands beside it.
const COVERED: u32 = 8;
/// Objects with less area than a square of this side are framed, not outlined: an outline would be all that is left.
const SMALL_PX: u64 = 12;

/// Draws the outline of every object in its colour ([`palette`] of its id) and its id beside or on it; the ids drawn.
///
/// Meant for pictures to be sent, at the size they are sent at: a digit is 21 pixels tall where the longest side is 1024.
/// A mask of another size is scaled to the picture's. An object whose mask is empty at that size is left out. Numbers are
/// laid so that they cover neither small objects nor each other as far as there is room. Allocates.
pub fn set_of_mark(picture: &mut PictureMut<'_>, objects: &[(ObjectId, &Rle)]) -> Vec<ObjectId> {
    let (width, height) = (picture.width_px(), picture.height_px());
    let longest = width.max(height);
    let shapes: Vec<Shape> =
        objects.iter().filter_map(|(id, mask)| Shape::new(*id, mask, width, height)).collect();
    let mut painter = Painter::new();
    let thickness = ((longest + 256) / 512).max(1);
    for shape in &shapes {
        if shape.area < SMALL_PX * SMALL_PX {
            shape.frame(picture, thickness);
        } else if let Some((_, mask)) = objects.iter().find(|(id, _)| *id == shape.id) {
            painter.contour(picture, mask, palette(shape.id.0), thickness);
        }
    }
    // A font pixel of 3 at 1024, 2 at 640 and 1 below 576.
    let scale = ((longest + 192) / 384).max(1);
    let mut placed: Vec<[u32; 4]> = Vec::new();
    // The small ones have the least choice.
    let mut order: Vec<&Shape> = shapes.iter().collect();
    order.sort_by_key(|shape| shape.area);
    for shape in order {
        let text = shape.id.to_string();
        let (w, h) = label_extent_px(&text, scale);
        let (w, h) = (w.min(width), h.min(height));
        let at = shape
            .inside(w, h, 4 * scale, &placed)
            .unwrap_or_else(|| shape.beside(w, h, [width, height], scale, &shapes, &placed));
        placed.push([at[0], at[1], at[0] + w, at[1] + h]);
        label_at_scale(picture, at[0], at[1], &text, palette(shape.id.0), scale);
    }
    shapes.iter().map(|shape| shape.id).collect()
}

/// An object at the picture's size.
struct Shape {
    id: ObjectId,
    bits: Bits,
    area: u64,
    /// `[x0, y0, x1, y1]`, the latter two exclusive.
    bounds: [u32; 4],
    centre: [u32; 2],
}

impl Shape {
    fn new(id: ObjectId, mask: &Rle, width: u32, height: u32) -> Option<Self> {
        let mut bits = Bits::default();
        bits.rasterise(mask, width, height);
        let [mut x0, mut y0, mut x1, mut y1] = [u32::MAX, u32::MAX, 0, 0];
        let (mut area, mut sum_x, mut sum_y) = (0_u64, 0_u64, 0_u64);
        let (first, last) = bits.rows();
        for y in first..last {
            bits.for_each_span(y, y, |from, to| {
                let (from, to, y) = (from as u32, to as u32, y as u32);
                (x0, y0, x1, y1) = (x0.min(from), y0.min(y), x1.max(to), y1.max(y + 1));
                let count = u64::from(to - from);
                area += count;
                sum_x += count * u64::from(from + to) / 2;
                sum_y += count * u64::from(y);
            });
        }
        let centre = [sum_x.checked_div(area)? as u32, sum_y.checked_div(area)? as u32];
        Some(Self { id, bits, area, bounds: [x0, y0, x1, y1], centre })
    }

    /// Draws a frame around the object, one pixel off; where the picture ends, so does the frame.
    fn frame(&self, picture: &mut PictureMut<'_>, thickness: u32) {
        let ink = picture.ink(palette(self.id.0), 1.0);
        let [x0, y0, x1, y1] = self.bounds.map(i64::from);
        let t = i64::from(thickness);
        let (left, top, right, bottom) = (x0 - 1, y0 - 1, x1 + 1, y1 + 1);
        for strip in [
            [left - t, top - t, right + t, top],
            [left - t, bottom, right + t, bottom + t],
            [left - t, top, left, bottom],
            [right, top, right + t, bottom],
        ] {
            picture.blend_rectangle(strip.map(|edge| edge.max(0) as u32), ink);
        }
    }

    /// The place nearest to the object's centre, in steps of so many pixels, where a label lies on nothing but the object.
    fn inside(&self, w: u32, h: u32, step: u32, placed: &[[u32; 4]]) -> Option<[u32; 2]> {
        if u64::from(w * h) * u64::from(COVERED) > self.area {
            return None;
        }
        let [x0, y0, x1, y1] = self.bounds;
        let columns = (x0..=x1.checked_sub(w)?).step_by(step as usize);
        let rows = (y0..=y1.checked_sub(h)?).step_by(step as usize);
        let fits = |[x, y]: [u32; 2]| {
            let part = [x, y, x + w, y + h];
            placed.iter().all(|other| overlap(part, *other) == 0)
                && self.bits.count_within(part) == u64::from(w * h)
        };
        let off = |[x, y]: [u32; 2]| {
            let [dx, dy] = [(x + w / 2).abs_diff(self.centre[0]), (y + h / 2).abs_diff(self.centre[1])];
            u64::from(dx).pow(2) + u64::from(dy).pow(2)
        };
        let mut places: Vec<[u32; 2]> = rows.flat_map(|y| columns.clone().map(move |x| [x, y])).collect();
        places.sort_by_key(|place| off(*place));
        places.into_iter().find(|place| fits(*place))
    }

    /// The place around the object's box that covers the least of any object, and of other labels.
    fn beside(
        &self,
        w: u32,
        h: u32,
        [width, height]: [u32; 2],
        gap: u32,
        shapes: &[Shape],
        placed: &[[u32; 4]],
    ) -> [u32; 2] {
        let [x0, y0, x1, y1] = self.bounds.map(i64::from);
        let (w64, h64, gap) = (i64::from(w), i64::from(h), i64::from(gap));
        let (left, right) = (x0 - w64 - gap, x1 + gap);
        let (above, below) = (y0 - h64 - gap, y1 + gap);
        let across = [(x0 + x1 - w64) / 2, x0, x1 - w64, left, right];
        let down = [(y0 + y1 - h64) / 2, y0, y1 - h64];
        let candidates = across
            .iter()
            .flat_map(|x| [[*x, above], [*x, below]])
            .chain(down.iter().flat_map(|y| [[left, *y], [right, *y]]));
        let kept = candidates.map(|[x, y]| {
            [x.clamp(0, i64::from(width - w)) as u32, y.clamp(0, i64::from(height - h)) as u32]
        });
        let cost = |[x, y]: [u32; 2]| {
            let part = [x, y, x + w, y + h];
            // A covered pixel of a small object costs more than one of a large one.
            let objects: u64 =
                shapes.iter().map(|shape| (shape.bits.count_within(part) << 20) / shape.area.max(1)).sum();
            let labels: u64 = placed.iter().map(|other| overlap(part, *other)).sum();
            objects + (labels << 20)
        };
        kept.min_by_key(|place| cost(*place)).unwrap_or([0, 0])
    }
}

/// Pixels that two boxes share.
fn overlap([ax0, ay0, ax1, ay1]: [u32; 4], [bx0, by0, bx1, by1]: [u32; 4]) -> u64 {
    let across = ax1.min(bx1).saturating_sub(ax0.max(bx0));
    let down = ay1.min(by1).saturating_sub(ay0.max(by0));
    u64::from(across) * u64::from(down)
}

#[cfg(test)]
mod tests {
    use sightline_core::{Mask, PixelFormat};

    use super::{super::PlaneMut, *};

    const GREY: u8 = 100;

    fn rectangle_mask(width: u32, height: u32, [x0, y0, x1, y1]: [u32; 4]) -> Rle {
        let mut mask = Mask::new(width, height);
        for (x, y) in (y0..y1).flat_map(|y| (x0..x1).map(move |x| (x, y))) {
            mask.data_mut()[(y * width + x) as usize] = 1;
        }
        Rle::encode(&mask)
    }

    struct Drawn {
        width: u32,
        bytes: Vec<u8>,
        ids: Vec<u32>,
    }

    impl Drawn {
        fn new(width: u32, height: u32, objects: &[(u32, Rle)]) -> Self {
            let mut bytes = vec![GREY; (width * height * 3) as usize];
            let plane = PlaneMut { data: &mut bytes, stride_bytes: 3 * width as usize };
            let mut picture = PictureMut::new(PixelFormat::Rgb, width, height, [plane]).unwrap();
            let objects: Vec<_> = objects.iter().map(|(id, mask)| (ObjectId(*id), mask)).collect();
            let ids = set_of_mark(&mut picture, &objects).iter().map(|id| id.0).collect();
            Self { width, bytes, ids }
        }

        fn is_touched(&self, x: u32, y: u32) -> bool {
            self.bytes[((y * self.width + x) * 3) as usize..][..3] != [GREY; 3]
        }

        fn touched_in(&self, [x0, y0, x1, y1]: [u32; 4]) -> u32 {
            let all = (y0..y1).flat_map(|y| (x0..x1).map(move |x| (x, y)));
            all.filter(|(x, y)| self.is_touched(*x, *y)).count() as u32
        }
    }

    /// A label of one digit where the longest side is 1024.
    const CHIP: (u32, u32) = (27, 33);

    #[test]
    fn a_number_stands_in_the_middle_of_a_large_object() {
        assert_eq!(label_extent_px("7", 3), CHIP);
        let part = [300, 200, 700, 500];
        let drawn = Drawn::new(1024, 576, &[(7, rectangle_mask(1024, 576, part))]);
        assert_eq!(drawn.ids, [7]);
        assert!(drawn.is_touched(500, 350), "the middle bears the number");
        let inner = [302, 202, 698, 498];
        assert_eq!(drawn.touched_in(inner), CHIP.0 * CHIP.1, "nothing else of the inside is covered");
        assert_eq!(drawn.touched_in([0, 0, 1024, 200]), 0, "nothing around it is");
        let border = 400 * 300 - 396 * 296;
        assert_eq!(drawn.touched_in(part) - drawn.touched_in(inner), border, "the outline is whole");
    }

    /// The bytes of the digit itself, so that a wrong number cannot pass.
    #[test]
    fn the_number_is_the_objects() {
        let mask = rectangle_mask(1024, 576, [300, 200, 700, 500]);
        let one = Drawn::new(1024, 576, &[(1, mask.clone())]);
        // 13 has the colours of 1, a shade paler: only the shapes are compared.
        let thirteen = Drawn::new(1024, 576, &[(13, mask)]);
        assert_ne!(one.touched_in([302, 202, 698, 498]), thirteen.touched_in([302, 202, 698, 498]));
    }

    #[test]
    fn small_objects_stay_visible() {
        for (name, part) in [
            ("in the open", [500, 300, 508, 308]),
            ("top left corner", [0, 0, 6, 6]),
            ("bottom right corner", [1018, 570, 1024, 576]),
            ("one pixel", [700, 20, 701, 21]),
            ("a thin pole", [400, 100, 404, 500]),
            ("a small square", [400, 100, 440, 140]),
        ] {
            let drawn = Drawn::new(1024, 576, &[(4, rectangle_mask(1024, 576, part))]);
            let [x0, y0, x1, y1] = part;
            let area = (x1 - x0) * (y1 - y0);
            let outline = if area < 144 { 0 } else { area - (x1 - x0).saturating_sub(4) * (y1 - y0 - 4) };
            assert_eq!(drawn.touched_in(part), outline, "{name}: no more than its outline is covered");
            let chip =
                [x0.saturating_sub(60), y0.saturating_sub(60), (x1 + 60).min(1024), (y1 + 60).min(576)];
            assert!(drawn.touched_in(chip) >= CHIP.0 * CHIP.1, "{name}: its number is near");
        }
    }

    #[test]
    fn numbers_cover_neither_neighbours_nor_each_other() {
        // A row of small squares, closer to each other than a label is wide.
        let parts: Vec<[u32; 4]> = (0..6).map(|n| [300 + 34 * n, 250, 322 + 34 * n, 272]).collect();
        let objects: Vec<_> =
            (1..).zip(&parts).map(|(id, part)| (id, rectangle_mask(1024, 576, *part))).collect();
        let drawn = Drawn::new(1024, 576, &objects);
        assert_eq!(drawn.ids, [1, 2, 3, 4, 5, 6]);
        for part in &parts {
            let [x0, y0, x1, y1] = *part;
            assert_eq!(drawn.touched_in([x0 + 2, y0 + 2, x1 - 2, y1 - 2]), 0, "{part:?}");
        }
        let outlines: u32 = parts.iter().map(|_| 22 * 22 - 18 * 18).sum();
        assert_eq!(drawn.touched_in([0, 0, 1024, 576]), outlines + 6 * CHIP.0 * CHIP.1, "all whole");
    }

    #[test]
    fn masks_of_another_size_and_lost_objects() {
        let mask = rectangle_mask(512, 288, [150, 100, 350, 250]);
        let drawn = Drawn::new(1024, 576, &[(2, mask), (3, Rle::empty(512, 288))]);
        assert_eq!(drawn.ids, [2], "a number nobody can see is not promised");
        assert!(drawn.is_touched(300, 200) && !drawn.is_touched(299, 200), "outline at twice the size");
        // Pictures smaller than a label, and one full of one object.
        assert_eq!(Drawn::new(3, 2, &[(9, rectangle_mask(3, 2, [0, 0, 3, 2]))]).ids, [9]);
        assert_eq!(Drawn::new(64, 64, &[(12, rectangle_mask(64, 64, [0, 0, 64, 64]))]).ids, [12]);
    }
}
