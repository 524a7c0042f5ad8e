//! Polygons to pixels, each rule exactly as the library that the users of a data set have: pycocotools for COCO, Pillow for PhraseCut.

/// Steps per pixel in which pycocotools follows a boundary.
const FINE: f64 = 5.0;

/// The pixels of a polygon x0, y0, x1, y1, .. as pycocotools 2.0 finds them, row by row.
///
/// Its corners are rounded to fifths of pixels, and its sides become points a fifth apart. Where the points step across the centre of a
/// column of pixels, the column is crossed at the row below; a pixel is inside if the number of crossings above it is odd. Columns are
/// counted on, so that a crossing below the last row is one at the top of the next column.
pub(super) fn as_pycocotools(polygon: &[f64], width: u32, height: u32) -> Vec<bool> {
    let (width, height) = (width as usize, height as usize);
    let fine = |value: f64| (FINE * value + 0.5) as i64;
    let corners: Vec<(i64, i64)> = polygon.chunks_exact(2).map(|at| (fine(at[0]), fine(at[1]))).collect();
    let points = outline(&corners);
    let mut crossed = vec![false; width * height + 1];
    for pair in points.windows(2) {
        let [(x0, y0), (x1, y1)] = [pair[0], pair[1]];
        if x0 == x1 {
            continue;
        }
        let left = if x1 < x0 { x1 } else { x1 - 1 };
        let column = (left as f64 + 0.5) / FINE - 0.5;
        if column.floor() != column || column < 0.0 || column > width as f64 - 1.0 {
            continue;
        }
        let row = ((y0.min(y1) as f64 + 0.5) / FINE - 0.5).clamp(0.0, height as f64).ceil();
        crossed[column as usize * height + row as usize] ^= true;
    }
    let mut mask = vec![false; width * height];
    let mut inside = false;
    for (at, crossed) in crossed.iter().take(width * height).enumerate() {
        inside ^= crossed;
        mask[at % height * width + at / height] = inside;
    }
    mask
}

/// The points of the closed line through the corners: one for each step along the longer of both directions. A side is followed upwards
/// in that direction, so that it has the same points from both ends.
fn outline(corners: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut points = Vec::new();
    for (at, &from) in corners.iter().enumerate() {
        let to = corners[(at + 1) % corners.len()];
        let (dx, dy) = ((to.0 - from.0).abs(), (to.1 - from.1).abs());
        let flat = dx >= dy;
        let steps = dx.max(dy);
        if steps == 0 {
            continue;
        }
        let backwards = if flat { from.0 > to.0 } else { from.1 > to.1 };
        let (low, high) = if backwards { (to, from) } else { (from, to) };
        let slope =
            if flat { (high.1 - low.1) as f64 / dx as f64 } else { (high.0 - low.0) as f64 / dy as f64 };
        let point = |step: i64| {
            let across = |start: i64| (start as f64 + slope * step as f64 + 0.5) as i64;
            if flat { (low.0 + step, across(low.1)) } else { (across(low.0), low.1 + step) }
        };
        points.extend((0..=steps).map(|step| point(if backwards { steps - step } else { step })));
    }
    points
}

/// A side of a polygon that is not horizontal, for [`as_pillow`]; in single precision, as there.
struct Side {
    top: i64,
    bottom: i64,
    from: [i64; 2],
    slope: f32,
}

impl Side {
    fn new(from: [i64; 2], to: [i64; 2]) -> Self {
        let slope = (to[0] - from[0]) as f32 / (to[1] - from[1]) as f32;
        Self { top: from[1].min(to[1]), bottom: from[1].max(to[1]), from, slope }
    }

    fn at(&self, y: i64) -> f32 {
        (y - self.from[1]) as f32 * self.slope + self.from[0] as f32
    }

    /// Whether it ends in this row, and not straight.
    fn leans_at(&self, y: i64) -> bool {
        (y == self.top || y == self.bottom) && self.slope != 0.0
    }
}

/// The pixels of a polygon as Pillow's `ImageDraw.polygon` fills them (version 13), row by row.
///
/// In each row, the sides that cross it are taken from left to right, and the pixels from each first to each second one are inside, those
/// at the borders too; horizontal sides are drawn. Two sides that meet in a sharp corner are cut where the next row begins, so that the
/// corner is not apart from the rest.
pub(super) fn as_pillow(polygon: &[[i64; 2]], width: u32, height: u32) -> Vec<bool> {
    let mut mask = vec![false; width as usize * height as usize];
    let mut fill = |left: i64, right: i64, y: i64| {
        if (0..i64::from(height)).contains(&y) {
            let row = y as usize * width as usize;
            (left.max(0)..=right.min(i64::from(width) - 1)).for_each(|x| mask[row + x as usize] = true);
        }
    };
    let mut sides = Vec::new();
    for (at, &from) in polygon.iter().enumerate() {
        let to = polygon[(at + 1) % polygon.len()];
        if from[1] == to[1] {
            fill(from[0].min(to[0]), from[0].max(to[0]), from[1]);
        } else {
            sides.push(Side::new(from, to));
        }
    }
    let rows = polygon.iter().map(|corner| corner[1]);
    let last = rows.clone().max().unwrap_or(-1).min(i64::from(height));
    for y in rows.min().unwrap_or(0).max(0)..=last {
        let mut crossings = Vec::new();
        for (number, side) in
            sides.iter().enumerate().filter(|(_, side)| (side.top..=side.bottom).contains(&y))
        {
            if y == side.bottom && y < last {
                // Here another side begins.
                crossings.extend([side.at(y); 2]);
            } else if side.leans_at(y) {
                crossings.push(joined(side, &sides[..number], y));
            } else {
                crossings.push(side.at(y));
            }
        }
        crossings.sort_by(f32::total_cmp);
        for pair in crossings.chunks_exact(2) {
            fill(half_up(pair[0]), half_down(pair[1]), y);
        }
    }
    mask
}

/// Where a side crosses the row in which it ends: its corner with one of the sides before it, moved to a pixel beside the next row's
/// crossings if both of these are more than a pixel away to the same side.
fn joined(side: &Side, before: &[Side], y: i64) -> f32 {
    let own = side.at(y);
    let next = if y == side.bottom { y - 1 } else { y + 1 };
    let meets = |other: &&Side| {
        other.leans_at(y) && own.round() == other.at(y).round() && (other.top..=other.bottom).contains(&next)
    };
    let Some(other) = before.iter().find(meets) else { return own };
    let (a, b) = (side.at(next), other.at(next));
    if own > a + 1.0 && own > b + 1.0 {
        a.max(b).round() + 1.0
    } else if own < a - 1.0 && own < b - 1.0 {
        a.min(b).round() - 1.0
    } else {
        own
    }
}

/// Rounded to the nearest whole number, halves away from zero.
fn half_up(x: f32) -> i64 {
    x.signum() as i64 * (f64::from(x.abs()) + 0.5).floor() as i64
}

/// The same, halves towards zero.
fn half_down(x: f32) -> i64 {
    x.signum() as i64 * (f64::from(x.abs()) - 0.5).ceil() as i64
}
