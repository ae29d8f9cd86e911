//! A bitmap with letters: plotters itself draws none without fonts of the machine.

use font8x8::{BASIC_FONTS, UnicodeFonts};
use plotters::backend::BitMapBackend;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontTransform,
};

/// Side of a letter of the font, points.
const LETTER: u32 = 8;

/// The bitmap.
pub(super) struct Lettered<'a>(pub(super) BitMapBackend<'a>);

/// Points of the bitmap for one of a letter.
fn scale(style: &impl BackendTextStyle) -> u32 {
    ((style.size() / 10.0).round() as u32).max(1)
}

impl DrawingBackend for Lettered<'_> {
    type ErrorType = <BitMapBackend<'static> as DrawingBackend>::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.0.get_size()
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.ensure_prepared()
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.present()
    }

    fn draw_pixel(
        &mut self,
        point: BackendCoord,
        color: BackendColor,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.draw_pixel(point, color)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.draw_rect(upper_left, bottom_right, style, fill)
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        position: BackendCoord,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        let scale = scale(style);
        let (width, height) = extent(text, scale);
        let anchor = style.anchor();
        let left = match anchor.h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let top = match anchor.v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        for (x, y) in dots(text, scale) {
            let (x, y) = (left + x, top + y);
            let (x, y) = match style.transform() {
                FontTransform::None => (x, y),
                FontTransform::Rotate90 => (-y, x),
                FontTransform::Rotate180 => (-x, -y),
                FontTransform::Rotate270 => (y, -x),
            };
            self.0.draw_pixel((position.0 + x, position.1 + y), style.color())?;
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Self::ErrorType>> {
        let (width, height) = extent(text, scale(style));
        Ok((width.unsigned_abs(), height.unsigned_abs()))
    }
}

fn extent(text: &str, scale: u32) -> (i32, i32) {
    let letters = i32::try_from(text.chars().count()).unwrap_or(i32::MAX / 1000);
    let side = i32::try_from(LETTER * scale).unwrap_or(1000);
    (letters.saturating_mul(side), side)
}

/// The points that are set in a text, from its upper left corner. Letters that the font does not
/// have are blanks.
fn dots(text: &str, scale: u32) -> impl Iterator<Item = (i32, i32)> + '_ {
    let set = text.chars().enumerate().flat_map(|(place, letter)| {
        let rows = BASIC_FONTS.get(letter).unwrap_or_default();
        (0..LETTER).flat_map(move |y| {
            // The lowest bit is the leftmost point.
            let row = rows[y as usize];
            (0..LETTER)
                .filter(move |x| row >> x & 1 == 1)
                .map(move |x| (place as u32 * LETTER + x, y))
        })
    });
    set.flat_map(move |(x, y)| {
        (0..scale * scale).map(move |n| {
            ((x * scale + n % scale).cast_signed(), (y * scale + n / scale).cast_signed())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_where_they_belong() {
        // 'l' is a stroke with feet; all its points lie within its cell.
        let dots: Vec<_> = dots(" l", 2).collect();
        assert!(!dots.is_empty());
        assert!(dots.iter().all(|&(x, y)| (16..32).contains(&x) && (0..16).contains(&y)));
        assert_eq!(extent(" l", 2), (32, 16));
    }
}
