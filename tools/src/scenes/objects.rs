//! The twelve objects. Each is a function from a point in the object's own coordinates to a colour, or `None` outside.
//!
//! Coordinates: the origin is the centre, u points right, v points **down**, and the object is within [`REACH`] of the
//! origin.

use std::f32::consts::{PI, TAU};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::classes::GROUNDS;
use super::paint::{Rgb, cell, floor, noise, noise2, shade_of, smoothstep};

/// Maximum distance of an object's points from its origin along each axis.
pub(crate) const REACH: f32 = 1.1;

/// The appearance of one object: the painter of its class, with its random colours and shape.
#[derive(Debug)]
pub(crate) struct Object {
    paint: fn(&Object, f32, f32) -> Option<Rgb>,
    main: Rgb,
    second: Rgb,
    /// Number of petals of a flower or panels of an umbrella.
    parts: f32,
    /// Unit vector towards the light in the object's coordinates; the third component points to the viewer.
    light: [f32; 3],
    /// Rotation of a ball in space: the rows of the rotation matrix.
    spin: [[f32; 3]; 3],
    /// Maximum rotation of the object in the image in either direction, radians.
    pub(crate) tilt: f32,
    seed: u32,
}

impl Object {
    /// A random object of a class, given as index of [`super::classes::CLASSES`].
    pub(crate) fn new(class: usize, rng: &mut ChaCha8Rng) -> Self {
        let r = &mut *rng;
        // (painter, main colour, second colour, parts, tilt)
        type Kind = (fn(&Object, f32, f32) -> Option<Rgb>, Rgb, Rgb, f32, f32);
        let (paint, main, second, parts, tilt): Kind = match class - GROUNDS {
            0 => (tennis_ball, shade_of(r, 0.185, 0.78, 0.90), Rgb([0.97, 0.98, 0.92]), 0.0, PI),
            1 => (soccer_ball, shade_of(r, 0.60, 0.06, 0.96), shade_of(r, 0.62, 0.15, 0.12), 0.0, PI),
            2 => (traffic_cone, shade_of(r, 0.055, 0.92, 0.98), shade_of(r, 0.09, 0.05, 0.97), 0.0, 0.35),
            3 => (rubber_duck, shade_of(r, 0.138, 0.88, 0.98), shade_of(r, 0.065, 0.90, 0.95), 0.0, 0.25),
            4 => (tree, shade_of(r, 0.42, 0.72, 0.36), shade_of(r, 0.075, 0.55, 0.36), 0.0, 0.12),
            5 => (mushroom, shade_of(r, 0.99, 0.85, 0.82), shade_of(r, 0.11, 0.14, 0.93), 0.0, 0.25),
            6 => (umbrella, shade_of(r, 0.765, 0.68, 0.60), shade_of(r, 0.775, 0.32, 0.88), 5.0, 0.40),
            7 => (fish, shade_of(r, 0.485, 0.78, 0.74), shade_of(r, 0.12, 0.80, 0.95), 0.0, 0.40),
            8 => {
                let petals = r.random_range(6..=8) as f32;
                (flower, shade_of(r, 0.935, 0.48, 0.97), shade_of(r, 0.125, 0.85, 0.94), petals, PI)
            }
            9 => (donut, shade_of(r, 0.03, 0.62, 0.30), shade_of(r, 0.085, 0.52, 0.84), 0.0, PI),
            10 => (crate_, shade_of(r, 0.102, 0.52, 0.86), shade_of(r, 0.09, 0.62, 0.66), 0.0, 0.30),
            _ => (butterfly, shade_of(r, 0.635, 0.80, 0.82), shade_of(r, 0.555, 0.62, 0.98), 0.0, 0.70),
        };
        let spin = rotation(r.random_range(0.0..TAU), r.random_range(0.0..TAU), r.random_range(0.0..TAU));
        Self { paint, main, second, parts, light: [0.0, 0.0, 1.0], spin, tilt, seed: r.random() }
    }

    /// The same object of this class in another colour.
    pub(crate) fn in_colour(mut self, class: usize, main: Rgb) -> Self {
        self.main = main;
        // The second colour of an umbrella, a crate and a butterfly is a shade of the first.
        if [6, 10, 11].contains(&(class - GROUNDS)) {
            self.second = main.mix(Rgb::WHITE, 0.3);
        }
        self
    }

    /// Sets the direction of the light in the object's coordinates.
    pub(crate) fn lit_from(mut self, light: [f32; 3]) -> Self {
        self.light = light;
        self
    }

    /// Colour at a point; `None` outside the object.
    pub(crate) fn colour(&self, u: f32, v: f32) -> Option<Rgb> {
        (self.paint)(self, u, v)
    }

    /// The colour of a surface with this unit normal: darker where it faces away from the light, with a highlight of
    /// strength `shine`.
    fn lit(&self, colour: Rgb, normal: [f32; 3], shine: f32) -> Rgb {
        let facing = dot(normal, self.light);
        // The component of the reflected light towards the viewer.
        let mirrored = (2.0 * facing * normal[2] - self.light[2]).max(0.0);
        let glint = mirrored * mirrored * mirrored * mirrored;
        colour * (0.58 + 0.52 * facing.max(-0.2)) + Rgb::WHITE * (shine * glint * glint * glint)
    }

    /// As [`Self::lit`] for a dome over an ellipse; `x`, `y` are the point as fractions of its semi-axes.
    fn dome(&self, colour: Rgb, x: f32, y: f32, shine: f32) -> Rgb {
        self.lit(colour, dome_normal(x, y), shine)
    }
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// Length of a vector. Faster than `f32::hypot`, which handles overflow (impossible here) and is a function call.
#[inline]
fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

fn dome_normal(x: f32, y: f32) -> [f32; 3] {
    [x, y, (1.0 - x * x - y * y).max(0.0).sqrt()]
}

/// The rotation by three angles about z, x and z.
fn rotation(a: f32, b: f32, c: f32) -> [[f32; 3]; 3] {
    let ((sa, ca), (sb, cb), (sc, cc)) = (a.sin_cos(), b.sin_cos(), c.sin_cos());
    [
        [ca * cc - sa * cb * sc, -ca * sc - sa * cb * cc, sa * sb],
        [sa * cc + ca * cb * sc, -sa * sc + ca * cb * cc, -ca * sb],
        [sb * sc, sb * cc, cb],
    ]
}

/// Distance from the centre of the ellipse at (x, y) with semi-axes (a, b), scaled to 1 on its edge.
fn ellipse(u: f32, v: f32, x: f32, y: f32, a: f32, b: f32) -> f32 {
    length((u - x) / a, (v - y) / b)
}

/// A fuzzy ball with a curved white seam.
fn tennis_ball(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    let r = length(u, v) / 0.9;
    (r < 1.0).then(|| {
        // Two arcs that curve away from each other: the seam seen from the side.
        let seam = (length(u - 1.12, v) - 0.80).abs().min((length(u + 1.12, v) - 0.80).abs());
        let fuzz = 0.90 + 0.20 * noise(u * 17.0, v * 17.0, o.seed);
        let colour = (o.main * fuzz).mix(o.second, smoothstep(0.085, 0.05, seam));
        o.dome(colour, u / 0.9, v / 0.9, 0.05) * (1.0 - 0.25 * smoothstep(0.75, 1.0, r))
    })
}

/// The twelve corners of an icosahedron on the unit sphere: the centres of a ball's pentagons.
const CORNERS: [[f32; 3]; 12] = {
    const A: f32 = 0.525_731_1;
    const B: f32 = 0.850_650_8;
    [
        [0.0, A, B],
        [0.0, A, -B],
        [0.0, -A, B],
        [0.0, -A, -B],
        [A, B, 0.0],
        [A, -B, 0.0],
        [-A, B, 0.0],
        [-A, -B, 0.0],
        [B, 0.0, A],
        [B, 0.0, -A],
        [-B, 0.0, A],
        [-B, 0.0, -A],
    ]
};

/// A truncated icosahedron projected to a sphere: black pentagons, white hexagons, seams between them.
fn soccer_ball(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    let (x, y) = (u / 0.92, v / 0.92);
    (x * x + y * y < 1.0).then(|| {
        let normal = dome_normal(x, y);
        let place = [dot(o.spin[0], normal), dot(o.spin[1], normal), dot(o.spin[2], normal)];
        // The three nearest corners, nearest first.
        let mut near = [(-2.0_f32, [0.0_f32; 3]); 3];
        for corner in CORNERS {
            let closeness = dot(corner, place);
            if closeness > near[0].0 {
                near = [(closeness, corner), near[0], near[1]];
            } else if closeness > near[1].0 {
                near = [near[0], (closeness, corner), near[1]];
            } else if closeness > near[2].0 {
                near[2] = (closeness, corner);
            }
        }
        let [(_, a), (_, b), (_, c)] = near;
        // The edge of a pentagon is between the points at a third of the way from its centre to two neighbouring
        // corners.
        let towards = |n: [f32; 3]| [2.0 * a[0] + n[0], 2.0 * a[1] + n[1], 2.0 * a[2] + n[2]];
        let edge = cross(towards(b), towards(c));
        let inside = dot(edge, place) * dot(edge, a).signum() / dot(edge, edge).sqrt();
        // The seam between two hexagons is on the great circle through two neighbouring corners.
        let circle = cross(a, b);
        let seam = dot(circle, place).abs() / dot(circle, circle).sqrt();
        let line = smoothstep(0.045, 0.02, seam);
        let colour = o.main.mix(o.second, (0.75 * line).max(smoothstep(-0.012, 0.012, inside)));
        o.lit(colour, normal, 0.25)
    })
}

/// A cone with two white bands on a square base.
fn traffic_cone(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    let half = 0.10 + 0.44 * (v + 0.98) / 1.68;
    if (-0.98..0.74).contains(&v) && u.abs() < half {
        let across = u / half;
        // The bands are circles around the cone, so they look curved.
        let level = v - 0.10 * (1.0 - across * across);
        let band = (-0.50..-0.20).contains(&level) || (0.10..0.42).contains(&level);
        let colour = if band { o.second } else { o.main };
        let normal = [across * 0.96, -0.2, (1.0 - across * across).max(0.05).sqrt()];
        return Some(o.lit(colour, normal, 0.30));
    }
    let foot = u.abs() < 0.86 && (0.66..0.92).contains(&v) && (u.abs() < 0.80 || (0.70..0.88).contains(&v));
    foot.then(|| {
        let shadow = 1.0 - 0.35 * smoothstep(0.78, 0.5, ellipse(u, v, 0.0, 0.72, 0.95, 0.22));
        o.main * (if v < 0.76 { 0.92 } else { 0.70 } * shadow)
    })
}

/// A rubber duck from the side: body, head, wing, beak, eye.
fn rubber_duck(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    let eye = length(u - 0.42, v + 0.47);
    if eye < 0.085 {
        return Some(if length(u - 0.44, v + 0.50) < 0.03 { Rgb::WHITE } else { Rgb::INK });
    }
    let beak = ellipse(u, v, 0.76, -0.32, 0.24, 0.12);
    if beak < 1.0 {
        let mouth = if (v + 0.31 - 0.05 * (u - 0.7)).abs() < 0.022 { 0.6 } else { 1.0 };
        return Some(o.dome(o.second * mouth, (u - 0.76) / 0.24, (v + 0.32) / 0.12, 0.2));
    }
    let head = ellipse(u, v, 0.32, -0.42, 0.42, 0.42);
    if head < 1.0 {
        return Some(o.dome(o.main, (u - 0.32) / 0.42, (v + 0.42) / 0.42, 0.35));
    }
    let body = ellipse(u, v, -0.08, 0.36, 0.86, 0.50);
    // The tail: a wedge at the back that points up.
    let tail = (-0.14..0.40).contains(&v) && u > -0.98 + 0.35 * (v + 0.14) && u < -0.62 + 0.5 * (v + 0.14);
    if body < 1.0 || tail {
        let wing = ellipse(u, v, -0.22, 0.30, 0.40, 0.24);
        let rim = smoothstep(0.14, 0.0, (wing - 1.0).abs()) * if v > 0.24 { 0.30 } else { 0.10 };
        let (x, y) = ((u + 0.08) / 0.95, (v - 0.36) / 0.58);
        return Some(
            o.dome(o.main.mix(o.second, 0.25 * smoothstep(0.5, 0.9, v)), x.clamp(-0.75, 0.75), y, 0.12)
                * (1.0 - rim),
        );
    }
    None
}

/// A conifer: four layers of needles with ragged edges, on a trunk.
fn tree(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    let rag = 0.085 * (noise(u * 13.0, v * 5.0, o.seed) - 0.5);
    // (top, bottom, half width at the bottom) of each layer, front layer first.
    for (tier, (top, bottom, wide)) in
        [(-1.02, -0.42, 0.36), (-0.72, -0.02, 0.53), (-0.36, 0.38, 0.68), (-0.02, 0.76, 0.82)]
            .into_iter()
            .enumerate()
    {
        let hang = bottom - 0.10 * (u / wide).powi(2) + 1.2 * rag;
        if v < top || v > hang {
            continue;
        }
        let half = wide * ((v - top) / (bottom - top)).powf(0.85) + rag;
        if u.abs() < half {
            let across = u / wide;
            let needles = noise2(u * 9.0 + v * 3.0, v * 15.0 - u.abs() * 8.0, o.seed ^ tier as u32);
            let under = smoothstep(0.30, 0.0, hang - v);
            let shaded = smoothstep(0.0, 0.28, v - top - if tier == 0 { -0.5 } else { 0.18 });
            let side = 0.5 + 0.5 * (across * o.light[0] * 1.6 + 0.25);
            let colour = o.main.mix(Rgb([0.30, 0.62, 0.42]), 0.55 * under * needles);
            return Some(colour * ((0.55 + 0.55 * needles) * (0.72 + 0.5 * side) * (0.72 + 0.28 * shaded)));
        }
    }
    (u.abs() < 0.12 && (0.6..1.0).contains(&v)).then(|| {
        let bark = noise(u * 30.0, v * 5.0, o.seed ^ 9);
        o.lit(
            o.second * (0.75 + 0.5 * bark),
            [u / 0.13, 0.0, (1.0 - (u / 0.13).powi(2)).max(0.0).sqrt()],
            0.0,
        )
    })
}

/// A toadstool: a domed cap with pale dots on a cream-coloured stem.
fn mushroom(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    // (u, v, radius) of each dot on the cap
    const DOTS: [(f32, f32, f32); 9] = [
        (0.02, -0.55, 0.17),
        (-0.42, -0.42, 0.12),
        (0.45, -0.45, 0.13),
        (-0.22, -0.17, 0.13),
        (0.27, -0.14, 0.15),
        (-0.66, -0.12, 0.11),
        (0.70, -0.12, 0.10),
        (-0.02, 0.06, 0.07),
        (-0.30, -0.78, 0.08),
    ];
    let rim = 0.14 - 0.10 * (u / 0.95).powi(2);
    let (x, y) = (u / 0.95, (v - 0.06) / 0.98);
    if x * x + y * y < 1.0 && v < rim {
        let squeeze = 1.0 - 0.45 * u.abs();
        let dot = DOTS.iter().any(|&(a, b, r)| length((u - a) / squeeze, v - b) < r);
        let colour = if dot { Rgb([0.98, 0.95, 0.90]) } else { o.main };
        let shadow = 1.0 - 0.30 * smoothstep(0.16, 0.0, rim - v);
        return Some(o.dome(colour, 0.95 * x, 0.9 * y, 0.30) * shadow);
    }
    let half = 0.22 + 0.12 * (v - 0.45).max(0.0) + 0.06 * smoothstep(0.3, 0.0, v);
    let foot = ellipse(u, v, 0.0, 0.82, 0.32, 0.16) < 1.0;
    ((0.0..0.84).contains(&v) && u.abs() < half || foot).then(|| {
        let across = u / 0.34;
        let gills = 0.62 + 0.38 * smoothstep(0.05, 0.38, v);
        let fibre = 0.94 + 0.12 * noise(u * 22.0, v * 3.0, o.seed);
        o.lit(o.second, [across, 0.0, (1.0 - across * across).max(0.0).sqrt()], 0.0) * (gills * fibre)
    })
}

/// An open umbrella from the side: panels of two colours between ribs, a curved lower edge, a hooked handle.
fn umbrella(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    let (x, y) = (u / 1.0, (v - 0.12) / 1.02);
    if x * x + y * y < 1.0 && v < 0.16 {
        // A rib is a meridian of the dome: x divided by the half width at this height is constant.
        let width = (1.0 - y * y).max(1e-4).sqrt();
        let turn = (x / width).clamp(-1.0, 1.0).asin() / PI + 0.5;
        let panel = turn * o.parts;
        let within = panel - panel.floor() - 0.5;
        // Between the tips of the ribs, the lower edge is higher.
        if v < 0.14 - 0.13 * (1.0 - 4.0 * within * within) {
            let colour = if panel as i32 % 2 == 0 { o.main } else { o.second };
            let fold = 1.0 - 0.22 * smoothstep(0.40, 0.5, within.abs());
            return Some(o.dome(colour, 0.92 * x, 0.92 * y, 0.22) * fold);
        }
    }
    let tip = u.abs() < 0.035 && (-1.02..-0.85).contains(&v);
    let pole = u.abs() < 0.045 && (-0.05..0.80).contains(&v);
    let hook = v >= 0.80 && (length(u - 0.14, v - 0.80) - 0.14).abs() < 0.05;
    (tip || pole || hook).then(|| o.main * 0.45)
}

/// A round fish with overlapping scales, fins of another colour and a large eye.
fn fish(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    let eye = length(u - 0.58, v + 0.12);
    if eye < 0.125 {
        return Some(if eye < 0.065 { Rgb::INK } else { Rgb([0.98, 0.98, 0.94]) });
    }
    let body = ellipse(u, v, 0.18, 0.0, 0.76, 0.54);
    if body < 1.0 {
        let (x, y) = ((u - 0.18) / 0.76, v / 0.54);
        let head = u > 0.42 + 0.12 * (1.0 - (v / 0.5).powi(2));
        let colour = if head {
            o.main.mix(o.second, 0.30)
        } else {
            // The scales are columns of arcs; every second column is shifted by half a scale.
            let (a, b) = (u / 0.15, v / 0.13);
            let column = floor(a);
            let shifted = b + 0.5 * (column & 1) as f32;
            let (du, dv) = (a - column as f32, shifted - floor(shifted) as f32 - 0.5);
            let arc = ((1.0 - du).powi(2) + 2.2 * dv * dv).sqrt();
            let edge = smoothstep(0.70, 0.95, arc);
            let own = cell(column, floor(shifted), o.seed);
            o.main.mix(Rgb([0.72, 0.98, 0.92]), 0.50 * (1.0 - arc).max(0.0) + 0.22 * own)
                * (1.0 - 0.45 * edge)
        };
        let gill = head && ((u - 0.42 - 0.12 * (1.0 - (v / 0.5).powi(2))).abs() < 0.035);
        let colour = if gill { colour * 0.6 } else { colour };
        return Some(o.dome(
            colour.mix(Rgb([0.95, 0.98, 0.90]), 0.35 * smoothstep(0.1, 0.5, v)),
            0.9 * x,
            0.9 * y,
            0.22,
        ));
    }
    let tail = u > -0.98
        && u < -0.42
        && v.abs() < 0.12 + 0.78 * (-0.45 - u)
        && u + 1.06 > 0.34 * (1.0 - v.abs() / 0.5);
    let back = ellipse(u, v, 0.08, -0.48, 0.42, 0.26) < 1.0 && u < 0.45 - 0.25 * (v + 0.5);
    let belly = ellipse(u, v, 0.12, 0.52, 0.22, 0.20) < 1.0;
    (tail || back || belly).then(|| {
        let ray = if tail { v / (u - 0.1) * 26.0 } else { u * 24.0 };
        o.second * (0.84 + 0.16 * ray.sin())
    })
}

/// Rounded petals, paler at the edge, around a disc with seeds.
fn flower(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    let r = length(u, v);
    if r < 0.30 {
        let seeds = noise(u * 15.0, v * 15.0, o.seed);
        let colour = o.second.mix(
            Rgb([0.66, 0.36, 0.06]),
            0.75 * smoothstep(0.55, 0.75, seeds) + 0.5 * smoothstep(0.2, 0.3, r),
        );
        return Some(o.dome(colour, u / 0.36, v / 0.36, 0.1));
    }
    let slice = v.atan2(u) / TAU * o.parts;
    // Petals overlap: each is wider than its slice and partly covered by the next one.
    for petal in [slice.floor(), slice.floor() + 1.0] {
        let across = (slice - petal - 0.25) * TAU / o.parts * r;
        let along = (r - 0.58) / 0.40;
        let wide = 0.36 * (6.4 / o.parts);
        let edge = ((across / wide).powi(2) + along * along).sqrt();
        if edge < 1.0 {
            let vein = 0.93 + 0.07 * (across * 46.0).sin();
            let colour = o
                .main
                .mix(Rgb([0.78, 0.16, 0.44]), 0.75 * smoothstep(0.72, 0.28, r))
                .mix(Rgb::WHITE, 0.30 * smoothstep(0.55, 1.0, r));
            let curl = 1.0 - 0.32 * smoothstep(0.72, 1.0, edge) + 0.10 * (across / wide);
            let lit = 0.94 + 0.14 * (u * o.light[0] + v * o.light[1]);
            return Some(colour * (vein * curl * lit));
        }
    }
    None
}

/// A ring of dough under dark icing with bright sprinkles.
fn donut(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    const SPRINKLES: [Rgb; 6] = [
        Rgb([1.0, 0.35, 0.55]),
        Rgb([1.0, 0.86, 0.25]),
        Rgb([0.35, 0.80, 1.0]),
        Rgb([0.98, 0.98, 0.95]),
        Rgb([0.50, 0.90, 0.40]),
        Rgb([1.0, 0.55, 0.20]),
    ];
    let r = length(u, v);
    (0.28..0.96).contains(&r).then(|| {
        let tube = (r - 0.62) / 0.34;
        let normal = [u / r * tube, v / r * tube, (1.0 - tube * tube).max(0.0).sqrt()];
        let drip = 0.10 * (noise(u * 3.4, v * 3.4, o.seed) - 0.5);
        if (0.36 + 0.5 * drip..0.86 + drip).contains(&r) {
            // Most cells of a grid have one sprinkle, at a random point and with a random rotation.
            let (column, row) = (floor(u / 0.20), floor(v / 0.20));
            let draw = |salt: u32| cell(column, row, o.seed ^ salt);
            let (x, y) = (
                u / 0.20 - column as f32 - 0.32 - 0.36 * draw(1),
                v / 0.20 - row as f32 - 0.32 - 0.36 * draw(2),
            );
            let (sin, cos) = (PI * draw(3)).sin_cos();
            let (along, across) = (x * cos + y * sin, y * cos - x * sin);
            if draw(4) < 0.88 && length((along.abs() - 0.20).max(0.0), across) < 0.145 {
                return o.lit(
                    SPRINKLES[(draw(5) * 5.999) as usize],
                    [normal[0] * 0.5, normal[1] * 0.5, 0.9],
                    0.0,
                );
            }
            return o.lit(o.main, normal, 0.45);
        }
        o.lit(o.second * (0.92 + 0.16 * noise(u * 9.0, v * 9.0, o.seed ^ 7)), normal, 0.05)
    })
}

/// Planks behind a frame and a diagonal cross of darker boards with nails.
fn crate_(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    const HALF: f32 = 0.84;
    const BOARD: f32 = 0.20;
    let (a, b) = (u.abs(), v.abs());
    (a.max(b) < HALF).then(|| {
        let inner = HALF - BOARD;
        let on_side = a > inner;
        let on_frame = on_side || b > inner;
        let diagonal = (u - v).abs() / std::f32::consts::SQRT_2;
        let on_cross = !on_frame && (diagonal < 0.11 || (u + v).abs() / std::f32::consts::SQRT_2 < 0.11);
        // The grain runs along each board.
        let (x, y) = if on_frame && on_side {
            (v, u)
        } else if on_cross {
            (u + v, u - v)
        } else {
            (u, v)
        };
        let grain = noise(x * 2.6, y * 19.0, o.seed ^ u32::from(on_frame));
        let fine = noise(x * 6.0, y * 44.0, o.seed ^ 5);
        let wood = |colour: Rgb| colour * (0.82 + 0.24 * grain + 0.10 * fine);
        if on_frame {
            let nail = length(a - inner - BOARD / 2.0, b - inner - BOARD / 2.0) < 0.045;
            let seam = if on_side && (b - inner).abs() < 0.018 { 0.6 } else { 1.0 };
            let rim = smoothstep(0.0, 0.05, HALF - a.max(b));
            let lit = 1.0
                + 0.14
                    * (o.light[0] * u.signum() * f32::from(u8::from(on_side))
                        + o.light[1] * v.signum() * f32::from(u8::from(!on_side)));
            return if nail {
                Rgb([0.30, 0.28, 0.27])
            } else {
                wood(o.main) * (seam * lit * (0.72 + 0.28 * rim))
            };
        }
        if on_cross {
            let d = diagonal.min((u + v).abs() / std::f32::consts::SQRT_2);
            return wood(o.main.mix(o.second, 0.25)) * (1.0 - 0.35 * smoothstep(0.085, 0.11, d));
        }
        // The planks behind; the frame casts a shadow on their ends.
        let plank = (v + inner) / (2.0 * inner) * 4.0;
        let gap = (plank - plank.floor() - 0.5).abs();
        let shadow = 0.62 + 0.38 * smoothstep(0.0, 0.22, inner - a.max(b));
        wood(o.second)
            * (shadow * if gap > 0.455 { 0.40 } else { 0.92 + 0.16 * cell(floor(plank), 0, o.seed) })
    })
}

/// Four wings, bright inside and dark with pale dots at the edge, and a thin body.
fn butterfly(o: &Object, u: f32, v: f32) -> Option<Rgb> {
    let a = u.abs();
    if ellipse(a, v, 0.0, 0.06, 0.075, 0.52) < 1.0 || length(a, v + 0.50) < 0.10 {
        return Some(Rgb([0.16, 0.13, 0.15]) * (1.1 - 3.0 * a));
    }
    let feeler = (a - 0.20 + 0.30 * (v + 0.98)).abs() < 0.028 && (-0.98..-0.52).contains(&v)
        || length(a - 0.20, v + 0.96) < 0.05;
    // Coordinates of a wing: the fore wing points up and outwards, the hind wing down; `x` points outwards.
    let wing = |x0: f32, y0: f32, angle: f32, long: f32, wide: f32| {
        let (sin, cos) = angle.sin_cos();
        let (x, y) = ((a - x0) * cos + (v - y0) * sin, (v - y0) * cos - (a - x0) * sin);
        // Wider towards the outside.
        let wide = wide * (1.0 + 0.35 * x / long);
        (length(x / long, y / wide), x, y)
    };
    let fore = wing(0.50, -0.36, -0.62, 0.60, 0.36);
    let hind = wing(0.38, 0.42, 0.75, 0.50, 0.33);
    let (edge, x, y) = if fore.0 < 1.0 { fore } else { hind };
    if edge < 1.0 {
        let margin = smoothstep(0.70, 0.78, edge);
        let around = y.atan2(x) * 7.0;
        let pearl =
            margin > 0.9 && (edge - 0.88).abs() < 0.055 && (around - around.floor() - 0.5).abs() < 0.22;
        if pearl {
            return Some(Rgb([0.93, 0.97, 1.0]));
        }
        // Veins spread from the point where the wing joins the body.
        let fan = (y / (x + 0.75)) * 10.0;
        let vein = smoothstep(0.40, 0.47, (fan - fan.floor() - 0.5).abs());
        let colour = o.main.mix(o.second, 0.70 * smoothstep(0.75, 0.1, edge)) * (1.0 - 0.45 * vein);
        let lit = 0.98 + 0.18 * (u * o.light[0] + v * o.light[1]);
        return Some((colour * lit).mix(Rgb([0.06, 0.05, 0.12]), margin));
    }
    feeler.then_some(Rgb([0.16, 0.13, 0.15]))
}
