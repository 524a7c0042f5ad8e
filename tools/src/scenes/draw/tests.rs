use super::*;

#[test]
fn a_scene_is_a_function_of_seed_and_index() {
    let one = draw(3, 7, 48, &Content::default());
    assert_eq!(one.pixels, draw(3, 7, 48, &Content::default()).pixels);
    assert_ne!(one.pixels, draw(3, 8, 48, &Content::default()).pixels);
    assert_ne!(one.pixels, draw(4, 7, 48, &Content::default()).pixels);
}

#[test]
fn the_mask_shows_what_the_scene_lists() {
    for index in 0..150 {
        let scene = draw(11, index, 64, &Content::default());
        assert!((2..=5).contains(&scene.objects.len()), "{index}");
        assert!((1..=2).contains(&scene.grounds.len()), "{index}");
        let share = |class: usize| {
            scene.mask.iter().filter(|&&c| usize::from(c) == class).count() as f32 / scene.mask.len() as f32
        };
        for object in &scene.objects {
            assert!(object.class >= GROUNDS && share(object.class) >= OBJECT_VISIBLE, "{index} {object:?}");
        }
        for &ground in &scene.grounds {
            assert!(ground < GROUNDS && share(ground) >= GROUND_VISIBLE, "{index}");
        }
    }
}

#[test]
fn the_mask_agrees_with_a_larger_drawing() {
    // The pixel centres of an image three times as large are the samples of the smaller image.
    let (mut same, mut all) = (0, 0);
    for index in 0..20 {
        let (coarse, fine) =
            (draw(2, index, 40, &Content::default()), draw(2, index, 120, &Content::default()));
        for y in 0..40 {
            for x in 0..40 {
                let block = (0..9).map(|i| fine.mask[(3 * y + i / 3) * 120 + 3 * x + i % 3]);
                let votes = block.filter(|&class| class == coarse.mask[y * 40 + x]).count();
                all += 1;
                same += usize::from(votes >= 4);
            }
        }
    }
    assert!(same as f64 > 0.99 * f64::from(all), "{same} of {all}");
}

#[test]
fn classes_keep_their_colours_under_any_light() {
    // (class, largest channel, smallest channel) of its mean colour.
    for (name, most, least) in [
        ("traffic cone", 0, 2),
        ("tree", 1, 0),
        ("butterfly", 2, 0),
        ("rubber duck", 0, 2),
        ("water", 2, 0),
        ("grass", 1, 2),
    ] {
        let class = CLASSES.iter().position(|class| class.name == name).unwrap() as u8;
        let mut seen = 0;
        for index in 0..120 {
            let scene = draw(1, index, 48, &Content::default());
            let mut sum = [0_u64; 3];
            let mut count = 0;
            for (&c, pixel) in scene.mask.iter().zip(scene.pixels.chunks(3)) {
                if c == class {
                    count += 1;
                    (0..3).for_each(|i| sum[i] += u64::from(pixel[i]));
                }
            }
            if count > 60 {
                seen += 1;
                assert!(sum[most] > sum[least], "{name} in scene {index}: {sum:?}");
            }
        }
        assert!(seen > 5, "{name} occurred {seen} times");
    }
}
