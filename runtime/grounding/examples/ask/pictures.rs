//! Files to pictures, and pictures to what is sent.

use std::{
    error::Error,
    fs::File,
    io::{BufReader, BufWriter},
    path::Path,
    time::Duration,
};

use sightline_core::{FrameStamp, Mask, NormBox, ObjectId, Picture, PixelFormat, Plane, Rle};
use sightline_grounding::{Album, Crop, View, llm::Image, protocol::Sent};
use sightline_vision::{
    draw::{PictureMut, PlaneMut, set_of_mark},
    part_around, rgb,
};

/// Packed RGB.
pub(crate) struct Frame {
    size_px: [u32; 2],
    data: Vec<u8>,
}

impl Frame {
    /// Reads a PNG or JPEG file.
    pub(crate) fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let named = |error: Box<dyn Error>| format!("picture {path:?}: expected a PNG or JPEG, got {error}");
        let is_png = path.extension().is_some_and(|name| name.eq_ignore_ascii_case("png"));
        let frame = if is_png { Self::read_png(path) } else { Self::read_jpeg(path) };
        frame.map_err(|error| named(error).into())
    }

    fn read_png(path: &Path) -> Result<Self, Box<dyn Error>> {
        let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info()?;
        let mut data = vec![0; reader.output_buffer_size().ok_or("too large a picture")?];
        let info = reader.next_frame(&mut data)?;
        data.truncate(info.buffer_size());
        let samples = info.color_type.samples();
        // Grey is all three; a fourth sample is alpha.
        let rgb = |pixel: &[u8]| if samples < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] };
        let data = data.chunks_exact(samples).flat_map(rgb).collect();
        Ok(Self { size_px: [info.width, info.height], data })
    }

    fn read_jpeg(path: &Path) -> Result<Self, Box<dyn Error>> {
        let mut image = mozjpeg::Decompress::new_path(path)?.rgb()?;
        let size_px = [image.width() as u32, image.height() as u32];
        let data = image.read_scanlines::<u8>()?;
        image.finish()?;
        Ok(Self { size_px, data })
    }

    fn picture(&self) -> Result<Picture<'_>, Box<dyn Error>> {
        let [width, height] = self.size_px;
        let plane = Plane { data: &self.data, stride_bytes: 3 * width as usize };
        Ok(Picture::new(PixelFormat::Rgb, width, height, &[plane])?)
    }

    /// A mask of the frame's size from a box in its pixels.
    pub(crate) fn mask(&self, box_px: [u32; 4]) -> Result<Rle, Box<dyn Error>> {
        let [width, height] = self.size_px;
        let [x0, y0, x1, y1] = box_px;
        if x0 >= x1 || y0 >= y1 || x1 > width || y1 > height {
            return Err(format!("--object: expected a box inside {width}x{height}, got {box_px:?}").into());
        }
        let mut mask = Mask::new(width, height);
        for row in mask.data_mut().chunks_exact_mut(width as usize).skip(y0 as usize).take((y1 - y0) as usize)
        {
            row[x0 as usize..x1 as usize].fill(1);
        }
        Ok(Rle::encode(&mask))
    }

    /// The whole frame, scaled, with the objects' outlines and numbers.
    pub(crate) fn view(
        &self,
        stamp: FrameStamp,
        objects: &[(ObjectId, Rle)],
        longest_px: u32,
    ) -> Result<View, Box<dyn Error>> {
        let [width, height] = self.size_px;
        let part_px = [0, 0, width, height];
        let sent_px = Sent::fit(self.size_px, longest_px);
        let mut data = rgb(&self.picture()?, part_px, sent_px)?;
        let plane = PlaneMut { data: &mut data, stride_bytes: 3 * sent_px[0] as usize };
        let mut picture = PictureMut::new(PixelFormat::Rgb, sent_px[0], sent_px[1], [plane])?;
        let objects: Vec<_> = objects.iter().map(|(id, mask)| (*id, mask)).collect();
        let marks = set_of_mark(&mut picture, &objects);
        let image = Image::new(sent_px[0], sent_px[1], data.into())?;
        Ok(View { stamp, picture_px: self.size_px, part_px, image, marks })
    }

    /// Puts a close-up of every object into the album.
    pub(crate) fn cut(
        &self,
        stamp: FrameStamp,
        objects: &[(ObjectId, Rle)],
        album: &mut Album,
    ) -> Result<(), Box<dyn Error>> {
        for (id, mask) in objects {
            let bounds = mask.bounds().unwrap_or(NormBox::WHOLE);
            let part_px = part_around(bounds, 0.15, self.size_px);
            let [width, height] = album.size_px(part_px);
            let data = rgb(&self.picture()?, part_px, [width, height])?;
            let image = Image::new(width, height, data.into())?;
            album.put(*id, Crop { stamp, part_px, image })?;
        }
        Ok(())
    }
}

/// One frame a second.
pub(crate) fn stamp(index: usize) -> FrameStamp {
    let time = Some(Duration::from_secs(index as u64));
    FrameStamp { index: index as u64, pts: time, running_time: time }
}

/// Writes a picture that is sent.
pub(crate) fn save(image: &Image, path: &Path) -> Result<(), Box<dyn Error>> {
    let [width, height] = image.size_px();
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.rgb())?;
    Ok(writer.finish()?)
}
