//! A small gray canvas: anti-aliased polygons, soft strokes, blur.
//!
//! Owns turning outlines into pixels and nothing about faces. Polygons are filled by accumulating the exact signed area that each edge
//! covers in each pixel (as font rasterisers do), so a thin lip line is right at 32 pixels and at 224 and costs no super-sampling.
//! Coordinates are pixels, x to the right, y down; luminance is 0 (black) to 1 (white), unclamped until [`Canvas::quantise`].

/// A point in pixels.
pub type Point = [f32; 2];

/// How much of each pixel a shape covers, inside its bounding box.
pub struct Mask {
    x0: usize,
    y0: usize,
    width: usize,
    height: usize,
    cover: Vec<f32>,
}

impl Mask {
    fn at(&self, x: usize, y: usize) -> f32 {
        if x < self.x0 || y < self.y0 || x >= self.x0 + self.width || y >= self.y0 + self.height {
            return 0.0;
        }
        self.cover[(y - self.y0) * self.width + x - self.x0]
    }

    /// Keeps only what `other` covers too.
    pub fn clipped(mut self, other: &Mask) -> Self {
        for y in 0..self.height {
            for x in 0..self.width {
                self.cover[y * self.width + x] *= other.at(x + self.x0, y + self.y0);
            }
        }
        self
    }
}

/// A gray picture under work, `[height, width]`.
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    data: Vec<f32>,
}

impl Canvas {
    pub fn new(width: usize, height: usize, paint: impl Fn(f32, f32) -> f32) -> Self {
        let mut data = Vec::with_capacity(width * height);
        for y in 0..height {
            data.extend((0..width).map(|x| paint(x as f32 + 0.5, y as f32 + 0.5)));
        }
        Self { width, height, data }
    }

    /// The coverage of a closed polygon. Overlapping parts of one outline count once as long as they turn the same way.
    pub fn mask(&self, outline: &[Point]) -> Mask {
        let bound = |axis: usize, limit: usize| {
            let low = outline.iter().fold(f32::MAX, |m, p| m.min(p[axis])).floor().clamp(0.0, limit as f32) as usize;
            let high = outline.iter().fold(f32::MIN, |m, p| m.max(p[axis])).ceil().clamp(0.0, limit as f32) as usize;
            (low, high.saturating_sub(low))
        };
        let (x0, width) = bound(0, self.width);
        let (y0, height) = bound(1, self.height);
        if width == 0 || height == 0 {
            return Mask { x0: 0, y0: 0, width: 0, height: 0, cover: Vec::new() };
        }
        // One column more than the box: an edge's area spills into the next column.
        let stride = width + 1;
        let mut area = vec![0.0f32; stride * height + 1];
        let mut previous = outline[outline.len() - 1];
        for &point in outline {
            let shift = |p: Point| [p[0] - x0 as f32, p[1] - y0 as f32];
            accumulate(&mut area, stride, width, height, shift(previous), shift(point));
            previous = point;
        }
        let mut cover = Vec::with_capacity(width * height);
        for row in area.chunks_exact(stride).take(height) {
            let mut sum = 0.0;
            cover.extend(row[..width].iter().map(|a| {
                sum += a;
                sum.abs().min(1.0)
            }));
        }
        Mask { x0, y0, width, height, cover }
    }

    /// Paints `mask`: `paint(x, y, old)` is the new luminance where the mask covers a pixel fully, `opacity` thins it out.
    pub fn paint(&mut self, mask: &Mask, opacity: f32, paint: impl Fn(f32, f32, f32) -> f32) {
        for y in 0..mask.height {
            for x in 0..mask.width {
                let cover = mask.cover[y * mask.width + x] * opacity;
                if cover > 0.002 {
                    let pixel = &mut self.data[(y + mask.y0) * self.width + x + mask.x0];
                    let new = paint((x + mask.x0) as f32 + 0.5, (y + mask.y0) as f32 + 0.5, *pixel);
                    *pixel += cover * (new - *pixel);
                }
            }
        }
    }

    /// Fills a polygon with one luminance.
    pub fn fill(&mut self, outline: &[Point], luminance: f32, opacity: f32) {
        let mask = self.mask(outline);
        self.paint(&mask, opacity, |_, _, _| luminance);
    }

    /// A stroke of varying full `width` (pixels, at relative position 0..1 along `line`) with crisp edges.
    pub fn stroke(&mut self, line: &[Point], width: impl Fn(f32) -> f32, luminance: f32, opacity: f32) {
        let outline = ribbon(line, width);
        self.fill(&outline, luminance, opacity);
    }

    /// Multiplies the luminance along `line` by `1 - strength * exp(-(d/radius)^2)`; a negative strength lightens.
    ///
    /// A radius thinner than a pixel is drawn at one pixel with less strength, so that fine wrinkles fade on small pictures.
    pub fn shade(&mut self, line: &[Point], radius: f32, strength: f32) {
        let drawn = radius.max(0.6);
        let strength = strength * (radius / drawn);
        let reach = 2.0 * drawn;
        let bound = |axis: usize, limit: usize| {
            let low = line.iter().fold(f32::MAX, |m, p| m.min(p[axis])) - reach;
            let high = line.iter().fold(f32::MIN, |m, p| m.max(p[axis])) + reach;
            (low.floor().clamp(0.0, limit as f32) as usize, high.ceil().clamp(0.0, limit as f32) as usize)
        };
        let (x0, x1) = bound(0, self.width);
        let (y0, y1) = bound(1, self.height);
        for y in y0..y1 {
            for x in x0..x1 {
                let p = [x as f32 + 0.5, y as f32 + 0.5];
                let d2 = if line.len() == 1 {
                    (p[0] - line[0][0]).powi(2) + (p[1] - line[0][1]).powi(2)
                } else {
                    line.windows(2).map(|w| segment_distance2(p, w[0], w[1])).fold(f32::MAX, f32::min)
                };
                if d2 < reach * reach {
                    self.data[y * self.width + x] *= 1.0 - strength * (-d2 / (drawn * drawn)).exp();
                }
            }
        }
    }

    /// Applies `change(x, y, old)` to every pixel.
    pub fn map(&mut self, mut change: impl FnMut(f32, f32, f32) -> f32) {
        for (y, row) in self.data.chunks_exact_mut(self.width).enumerate() {
            for (x, v) in row.iter_mut().enumerate() {
                *v = change(x as f32 + 0.5, y as f32 + 0.5, *v);
            }
        }
    }

    /// Gaussian blur with standard deviation `sigma` pixels; below 0.2 it does nothing.
    pub fn blur(&mut self, sigma: f32) {
        if sigma < 0.2 {
            return;
        }
        let radius = (2.5 * sigma).ceil() as usize;
        let mut kernel: Vec<f32> = (0..=2 * radius).map(|i| (-((i as f32 - radius as f32) / sigma).powi(2) / 2.0).exp()).collect();
        let sum: f32 = kernel.iter().sum();
        kernel.iter_mut().for_each(|k| *k /= sum);
        let (w, h) = (self.width, self.height);
        let mut line = vec![0.0; w.max(h) + 2 * radius];
        for y in 0..h {
            let row = &mut self.data[y * w..(y + 1) * w];
            for (i, v) in line[..w + 2 * radius].iter_mut().enumerate() {
                *v = row[(i.max(radius) - radius).min(w - 1)];
            }
            for (x, v) in row.iter_mut().enumerate() {
                *v = kernel.iter().zip(&line[x..]).map(|(k, l)| k * l).sum();
            }
        }
        for x in 0..w {
            for (i, v) in line[..h + 2 * radius].iter_mut().enumerate() {
                *v = self.data[(i.max(radius) - radius).min(h - 1) * w + x];
            }
            for y in 0..h {
                self.data[y * w + x] = kernel.iter().zip(&line[y..]).map(|(k, l)| k * l).sum();
            }
        }
    }

    /// The picture in 8 bits.
    pub fn quantise(&self) -> Vec<u8> {
        self.data.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0 + 0.5) as u8).collect()
    }
}

/// Adds the signed area right of the edge `a`-`b` to every pixel it crosses; a running sum along a row then gives coverage.
fn accumulate(area: &mut [f32], stride: usize, width: usize, height: usize, a: Point, b: Point) {
    if a[1] == b[1] {
        return;
    }
    let (direction, top, bottom) = if a[1] < b[1] { (1.0, a, b) } else { (-1.0, b, a) };
    let slope = (bottom[0] - top[0]) / (bottom[1] - top[1]);
    let mut x = top[0] - top[1].min(0.0) * slope;
    for y in top[1].max(0.0) as usize..height.min(bottom[1].max(0.0).ceil() as usize) {
        let row = y * stride;
        let dy = ((y + 1) as f32).min(bottom[1]) - (y as f32).max(top[1]);
        if dy <= 0.0 {
            continue;
        }
        let next = x + slope * dy;
        let d = dy * direction;
        // Left of the box everything lies to the right of the edge; right of it nothing does.
        let (x0, x1) = if x < next { (x, next) } else { (next, x) };
        let (x0, x1) = (x0.clamp(0.0, width as f32), x1.clamp(0.0, width as f32));
        let first = x0.floor();
        let i = first as usize;
        let last = x1.ceil();
        if last as usize <= i + 1 {
            let middle = 0.5 * (x0 + x1) - first;
            area[row + i] += d - d * middle;
            area[row + i + 1] += d * middle;
        } else {
            let s = (x1 - x0).recip();
            let enter = 1.0 - (x0 - first);
            let a0 = 0.5 * s * enter * enter;
            let leave = x1 - last + 1.0;
            let am = 0.5 * s * leave * leave;
            area[row + i] += d * a0;
            if last as usize == i + 2 {
                area[row + i + 1] += d * (1.0 - a0 - am);
            } else {
                let a1 = s * (1.5 - (x0 - first));
                area[row + i + 1] += d * (a1 - a0);
                for column in i + 2..last as usize - 1 {
                    area[row + column] += d * s;
                }
                let a2 = a1 + (last - first - 3.0) * s;
                area[row + last as usize - 1] += d * (1.0 - a2 - am);
            }
            area[row + last as usize] += d * am;
        }
        x = next;
    }
}

/// The outline of a stroke along `line`.
pub(super) fn ribbon(line: &[Point], width: impl Fn(f32) -> f32) -> Vec<Point> {
    let n = line.len();
    let mut outline = vec![[0.0; 2]; 2 * n];
    for i in 0..n {
        let (a, b) = (line[i.saturating_sub(1)], line[(i + 1).min(n - 1)]);
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let length = (dx * dx + dy * dy).sqrt().max(1e-6);
        let half = 0.5 * width(i as f32 / (n - 1).max(1) as f32);
        let (nx, ny) = (-dy / length * half, dx / length * half);
        outline[i] = [line[i][0] + nx, line[i][1] + ny];
        outline[2 * n - 1 - i] = [line[i][0] - nx, line[i][1] - ny];
    }
    outline
}

/// Rounds the corners of an open line (Chaikin's corner cutting, twice); the ends stay.
pub(super) fn rounded(line: &[Point]) -> Vec<Point> {
    let mut line = line.to_vec();
    for _ in 0..2 {
        let mut cut = Vec::with_capacity(2 * line.len());
        cut.push(line[0]);
        for w in line.windows(2) {
            let between = |t: f32| [w[0][0] + t * (w[1][0] - w[0][0]), w[0][1] + t * (w[1][1] - w[0][1])];
            cut.push(between(0.25));
            cut.push(between(0.75));
        }
        cut.push(line[line.len() - 1]);
        line = cut;
    }
    line
}

fn segment_distance2(p: Point, a: Point, b: Point) -> f32 {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let along = (((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / (dx * dx + dy * dy).max(1e-9)).clamp(0.0, 1.0);
    (p[0] - a[0] - along * dx).powi(2) + (p[1] - a[1] - along * dy).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(outline: &[Point]) -> f32 {
        let mut canvas = Canvas::new(20, 20, |_, _| 0.0);
        canvas.fill(outline, 1.0, 1.0);
        canvas.data.iter().sum()
    }

    #[test]
    fn coverage_is_exact_area() {
        assert!((total(&[[2.25, 3.5], [7.75, 3.5], [7.75, 9.0], [2.25, 9.0]]) - 5.5 * 5.5).abs() < 1e-2);
        assert!((total(&[[1.0, 1.0], [17.3, 2.0], [5.0, 16.1]]) - triangle_area()).abs() < 5e-2);
        // Turning the other way covers the same.
        assert!((total(&[[5.0, 16.1], [17.3, 2.0], [1.0, 1.0]]) - triangle_area()).abs() < 5e-2);
    }

    fn triangle_area() -> f32 {
        0.5 * ((16.3f32 * 15.1) - (4.0 * 1.0)).abs()
    }

    #[test]
    fn shapes_are_clipped_at_the_border() {
        assert!((total(&[[-10.0, -10.0], [10.0, -10.0], [10.0, 10.0], [-10.0, 10.0]]) - 100.0).abs() < 1e-2);
        assert!((total(&[[-50.0, -50.0], [90.0, -50.0], [90.0, 90.0], [-50.0, 90.0]]) - 400.0).abs() < 1e-2);
        assert_eq!(total(&[[30.0, 30.0], [40.0, 30.0], [40.0, 40.0]]), 0.0);
    }

    #[test]
    fn blur_keeps_the_mean_of_a_flat_picture() {
        let mut canvas = Canvas::new(9, 9, |_, _| 0.5);
        canvas.blur(1.3);
        assert!(canvas.data.iter().all(|v| (v - 0.5).abs() < 1e-5));
    }
}
