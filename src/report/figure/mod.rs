//! Figures: SVG documents of a few shapes each, in the page or in files of their own, and as PNG.
//!
//! Each kind of figure is a plain template in a file of its own over the little that [`axis`] shares; `maud` escapes every text. Figures name what
//! their shapes mean (classes of `figure.css`), the colours are given once, in [`COLOURS`], for light and for dark. In the page they are
//! CSS variables; a file of its own carries both sets, and chooses as its reader prefers; a PNG is light.
//!
//! Figures are about 460 units wide, so that their letters can be read on a phone and two of them stand side by side on a desk. No
//! figure tells anything by colour alone: lines differ in their dashes and carry their names, cells their numbers.

pub mod axis;
pub mod calibration;
pub mod confusion;
pub mod curves;
pub mod flips;
pub mod intervals;
pub mod ridge;
pub mod scaling;
pub mod strips;

use anyhow::{Context, Result, anyhow};
use maud::{Markup, PreEscaped, html};
use resvg::{tiny_skia, usvg};
use std::sync::{Arc, OnceLock};

/// Width that figures have unless they need more.
pub const WIDTH: f64 = 460.0;

/// Name, light and dark colour. Those that tell things apart follow Okabe and Ito (2008), darker on white so that lines stand out.
pub const COLOURS: [(&str, &str, &str); 9] = [
    ("paper", "#ffffff", "#15181d"),
    ("ink", "#1f2429", "#dfe3e8"),
    ("quiet", "#626a73", "#98a1ac"),
    ("rule", "#dde1e5", "#343b45"),
    ("blue", "#0067a5", "#5db5ea"),
    ("orange", "#c25400", "#f0a443"),
    ("green", "#00805c", "#3fc79c"),
    ("purple", "#9b4a86", "#dd94c2"),
    ("red", "#b3261e", "#f28b82"),
];

/// The look of all figures, in CSS variables.
pub const STYLE: &str = include_str!("figure.css");

/// `--name: colour` for every colour.
pub fn variables(dark: bool) -> String {
    COLOURS.iter().map(|(name, light, night)| format!("--{name}: {};", if dark { night } else { light })).collect::<Vec<_>>().join(" ")
}

/// [`STYLE`] with the colours in the place of variables, which readers of SVG files need not know.
fn resolved(dark: bool) -> String {
    COLOURS
        .iter()
        .fold(STYLE.to_string(), |css, (name, light, night)| css.replace(&format!("var(--{name})"), if dark { night } else { light }))
}

/// One figure.
pub struct Figure {
    /// Of the file, without an ending: small letters, digits and hyphens. Unique in a report.
    pub name: String,
    pub title: String,
    /// What is to be seen, for those who do not see it.
    pub description: String,
    pub width: f64,
    pub height: f64,
    /// SVG elements.
    pub body: Markup,
}

impl Figure {
    /// As part of the page, which holds [`STYLE`]. A figure that is wider than usual is scrolled on a narrow screen, not shrunk.
    pub fn inline(&self) -> Markup {
        let (title, desc) = (format!("{}-title", self.name), format!("{}-desc", self.name));
        let style = format!("min-width: min({:.0}px, {})", self.width, if self.width > WIDTH { "72rem" } else { "100%" });
        html! {
            svg viewBox={ "0 0 " (self.width) " " (self.height) } style=(style) role="img" aria-labelledby={ (title) " " (desc) } {
                title id=(title) { (self.title) }
                desc id=(desc) { (self.description) }
                (self.body)
            }
        }
    }

    /// As a file of its own.
    pub fn standalone(&self) -> String {
        self.document(&format!("{}@media (prefers-color-scheme: dark) {{ {} }}", resolved(false), resolved(true)))
    }

    fn document(&self, style: &str) -> String {
        let (width, height) = (self.width, self.height);
        let svg = html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox={ "-12 -12 " (width + 24.0) " " (height + 24.0) }
                width=(width + 24.0) height=(height + 24.0) role="img" aria-labelledby="title desc" {
                title id="title" { (self.title) }
                desc id="desc" { (self.description) }
                style { (PreEscaped(style)) }
                rect class="page" x="-12" y="-12" width=(width + 24.0) height=(height + 24.0) {}
                (self.body)
            }
        };
        svg.into_string() + "\n"
    }

    /// Twice as many pixels as units. Letters come from the machine's own fonts.
    ///
    /// # Errors
    /// Where the machine has no font: a picture whose words are missing is not made.
    pub fn png(&self) -> Result<Vec<u8>> {
        static FONTS: OnceLock<Arc<usvg::fontdb::Database>> = OnceLock::new();
        let fonts = FONTS.get_or_init(|| {
            let mut fonts = usvg::fontdb::Database::new();
            fonts.load_system_fonts();
            // What the first family that a style names falls back to.
            let sans = ["DejaVu Sans", "Noto Sans", "Liberation Sans", "Helvetica Neue", "Segoe UI", "Arial"];
            let has = |name: &&&str| fonts.faces().any(|face| face.families.iter().any(|(family, _)| family == **name));
            let chosen =
                sans.iter().find(has).map(|name| name.to_string()).or_else(|| Some(fonts.faces().next()?.families.first()?.0.clone()));
            if let Some(name) = chosen {
                fonts.set_sans_serif_family(name);
            }
            Arc::new(fonts)
        });
        if fonts.is_empty() {
            return Err(anyhow!("this machine has no fonts to draw the figure's words with (its SVG needs none)"));
        }
        let options = usvg::Options { fontdb: fonts.clone(), font_family: "sans-serif".into(), ..usvg::Options::default() };
        let tree = usvg::Tree::from_str(&self.document(&resolved(false)), &options).with_context(|| format!("drawing {}", self.name))?;
        let scale = 2.0;
        let size = tree.size();
        let (width, height) = ((size.width() * scale).ceil() as u32, (size.height() * scale).ceil() as u32);
        let mut pixels = tiny_skia::Pixmap::new(width, height).with_context(|| format!("drawing {}", self.name))?;
        resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
        pixels.encode_png().with_context(|| format!("drawing {}", self.name))
    }
}

/// Part of a file name or an anchor: small letters, digits and single hyphens.
pub fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => slug.push(c),
            _ if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    slug.trim_end_matches('-').to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every element closed, every text escaped, every number finite.
    pub fn well_formed(figure: &Figure) {
        let svg = figure.standalone();
        let options = usvg::roxmltree::ParsingOptions::default();
        let document =
            usvg::roxmltree::Document::parse_with_options(&svg, options).unwrap_or_else(|e| panic!("{}: {e}\n{svg}", figure.name));
        for node in document.descendants() {
            for attribute in node.attributes() {
                let value = attribute.value();
                assert!(!value.contains("NaN") && !value.contains("inf"), "{}: {}={value}", figure.name, attribute.name());
            }
        }
        assert!(!figure.title.is_empty() && !figure.description.is_empty() && slug(&figure.name) == figure.name, "{}", figure.name);
    }

    #[test]
    fn names_are_fit_for_files() {
        assert_eq!(slug("finetune/pll: <b>Loss</b>"), "finetune-pll-b-loss-b");
        assert_eq!(slug("../é/.."), "");
    }

    #[test]
    fn a_file_carries_both_looks_and_a_picture_is_made() {
        let body = html! { text class="quiet" x="1" y="12" { "a<b" } };
        let figure = Figure { name: "f".into(), title: "t & u".into(), description: "d".into(), width: 60.0, height: 20.0, body };
        well_formed(&figure);
        let svg = figure.standalone();
        assert!(svg.contains("a&lt;b") && svg.contains(COLOURS[2].1) && svg.contains(COLOURS[2].2) && !svg.contains("var("), "{svg}");
        // A machine without fonts says so; one with fonts draws.
        match figure.png() {
            Ok(png) => {
                let picture = image::load_from_memory(&png).unwrap().into_luma8();
                assert_eq!(picture.dimensions(), (168, 88));
                assert!(picture.pixels().any(|p| p.0[0] < 160) && picture.get_pixel(0, 0).0[0] == 255);
            }
            Err(error) => assert!(error.to_string().contains("no fonts"), "{error:#}"),
        }
    }
}
