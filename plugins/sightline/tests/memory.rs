//! Alone in its process, so that what it weighs is its own.
// A test's helpers may unwrap as its tests do.
#![allow(clippy::unwrap_used)]

use gst::prelude::*;

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn two_thousand_frames_weigh_nothing() {
    if !cfg!(target_os = "linux") {
        println!("SKIPPED: needs /proc");
        return;
    }
    gst::init().unwrap();
    gstsightline::plugin_register_static().unwrap();
    // As fast as they go, so by the clip's clock everything is late: no ladder, or the ring of its step filled before.
    for mode in ["live max-age=0", "live max-age=0 degrade-floor=coast", "every-frame"] {
        let mut harness = gst_check::Harness::new_parse(&format!(
            "sightlinetrack name=track model=fake mode={mode} prompts=box=20,40,60,80 ! sightlineoverlay"
        ));
        harness.set_src_caps_str("video/x-raw,format=RGB,width=160,height=120,framerate=25/1");
        harness.play();
        let mut bytes = vec![90_u8; 160 * 3 * 120];
        for y in 40..80 {
            bytes[(y * 160 + 20) * 3..(y * 160 + 60) * 3]
                .chunks_exact_mut(3)
                .for_each(|pixel| pixel.copy_from_slice(&[230, 20, 20]));
        }
        let mut push = |index: u64| {
            let mut buffer = gst::Buffer::from_mut_slice(bytes.clone());
            buffer.get_mut().unwrap().set_pts(index * gst::ClockTime::from_mseconds(40));
            harness.push_and_pull(buffer).unwrap();
        };
        (0..400).for_each(|index| {
            push(index);
            std::thread::sleep(std::time::Duration::from_millis(1));
        });
        let before = resident_bytes();
        (400..2400).for_each(&mut push);
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 4 << 20, "{mode}: grown by {grown} bytes");
        let stats = harness.find_element("sightlinetrack").unwrap().property::<gst::Structure>("stats");
        assert_eq!(stats.get::<u64>("frames-in"), Ok(2400), "{mode}");
    }
}
