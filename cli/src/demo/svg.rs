//! A small writer of SVG: elements with attributes, numbers in as few digits as the eye can tell apart.

use std::fmt::Write as _;

/// A picture being written.
#[derive(Debug, Default)]
pub(crate) struct Svg {
    body: String,
}

/// A path's outline being written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outline(String);

impl Svg {
    /// A filled rectangle with round corners.
    pub(crate) fn rect(&mut self, class: &str, [x, y, width, height]: [f64; 4], radius: f64) {
        let radius = if radius > 0.0 {
            format!(r#" rx="{}""#, number(radius))
        } else {
            String::new()
        };
        self.line(&format!(
            r#"<rect class="{class}" x="{}" y="{}" width="{}" height="{}"{radius}/>"#,
            number(x),
            number(y),
            number(width.max(0.0)),
            number(height.max(0.0)),
        ));
    }

    pub(crate) fn circle(&mut self, class: &str, x: f64, y: f64, radius: f64) {
        self.line(&format!(
            r#"<circle class="{class}" cx="{}" cy="{}" r="{}"/>"#,
            number(x),
            number(y),
            number(radius)
        ));
    }

    pub(crate) fn stroke(&mut self, class: &str, from: [f64; 2], to: [f64; 2]) {
        let mut outline = Outline::default();
        outline.move_to(from).line_to(to);
        self.path(class, &outline);
    }

    pub(crate) fn path(&mut self, class: &str, outline: &Outline) {
        if !outline.0.is_empty() {
            self.line(&format!(r#"<path class="{class}" d="{}"/>"#, outline.0));
        }
    }

    /// Text whose start (or end, or middle, by its class) is at a point.
    pub(crate) fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        self.line(&format!(
            r#"<text class="{class}" x="{}" y="{}">{}</text>"#,
            number(x),
            number(y),
            escaped(text)
        ));
    }

    /// Text of several classes on one line.
    pub(crate) fn spans(&mut self, class: &str, x: f64, y: f64, spans: &[(&str, &str)]) {
        let mut inner = String::new();
        for (class, text) in spans {
            let _ = write!(inner, r#"<tspan class="{class}">{}</tspan>"#, escaped(text));
        }
        self.line(&format!(
            r#"<text class="{class}" x="{}" y="{}" xml:space="preserve">{inner}</text>"#,
            number(x),
            number(y),
        ));
    }

    /// The finished document. `title` is what a screen reader says.
    pub(crate) fn finish(self, [width, height]: [f64; 2], title: &str, style: &str) -> String {
        let (width, height) = (number(width), number(height));
        format!(
            concat!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" "#,
                r#"viewBox="0 0 {width} {height}" role="img">"#,
                "\n<title>{title}</title>\n<style>\n{style}</style>\n{body}</svg>\n"
            ),
            width = width,
            height = height,
            title = escaped(title),
            style = style,
            body = self.body,
        )
    }

    fn line(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }
}

impl Outline {
    pub(crate) fn move_to(&mut self, [x, y]: [f64; 2]) -> &mut Self {
        let _ = write!(self.0, "M{} {}", number(x), number(y));
        self
    }

    pub(crate) fn line_to(&mut self, [x, y]: [f64; 2]) -> &mut Self {
        let _ = write!(self.0, "L{} {}", number(x), number(y));
        self
    }

    pub(crate) fn curve_to(&mut self, a: [f64; 2], b: [f64; 2], to: [f64; 2]) -> &mut Self {
        let _ = write!(
            self.0,
            "C{} {} {} {} {} {}",
            number(a[0]),
            number(a[1]),
            number(b[0]),
            number(b[1]),
            number(to[0]),
            number(to[1])
        );
        self
    }

    pub(crate) fn close(&mut self) -> &mut Self {
        self.0.push('Z');
        self
    }
}

/// One decimal, and none where it is zero.
fn number(value: f64) -> String {
    let value = if value.is_finite() { value } else { 0.0 };
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0" } else { text }.to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_numbers_are_short() {
        let mut svg = Svg::default();
        svg.text("t", 1.04, -0.01, "a < b & \"c\"");
        let mut outline = Outline::default();
        outline
            .move_to([0.0, 1.25])
            .line_to([f64::NAN, 3.0])
            .close();
        svg.path("p", &outline);
        let document = svg.finish([10.0, 20.5], "x > y", "");
        assert!(
            document.contains(r#"<text class="t" x="1" y="0">a &lt; b &amp; &quot;c&quot;</text>"#)
        );
        assert!(document.contains(r#"d="M0 1.2L0 3Z""#), "{document}");
        assert!(document.contains(r#"viewBox="0 0 10 20.5""#));
        assert!(document.contains("<title>x &gt; y</title>"));
    }
}
