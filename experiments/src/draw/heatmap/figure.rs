//! The data of a figure of heat maps.

/// Heat maps over the same lengths and depths.
pub struct HeatFigure {
    /// First line above the panels.
    pub title: String,
    /// Second line above the panels.
    pub subtitle: String,
    /// Trained length in tokens; 0 draws no mark.
    pub trained: usize,
    /// Mean score, 0 to 1, at which a length counts as mastered; drawn as a line.
    pub threshold: f64,
    /// Title of the vertical axis of the maps.
    pub depth_title: String,
    /// Lengths in tokens, ascending: the columns.
    pub lengths: Vec<usize>,
    /// Depths from 0 to 1, ascending: the rows, the first on top.
    pub depths: Vec<f64>,
    /// In reading order.
    pub panels: Vec<HeatPanel>,
}

/// The scores of one method.
pub struct HeatPanel {
    /// Name of the method.
    pub name: String,
    /// `[length][depth]`, 0 to 1; `None` for a cell without a record.
    pub scores: Vec<Vec<Option<f64>>>,
}

/// Where the trained length lies relative to the columns.
#[derive(Debug, PartialEq)]
pub enum TrainedSide {
    /// The trained length is not known.
    Unknown,
    /// Below all lengths.
    Left,
    /// Right of this number of columns.
    After(usize),
    /// Above all lengths.
    Right,
}

impl HeatFigure {
    /// Where the trained length lies.
    pub fn trained_side(&self) -> TrainedSide {
        let (lengths, trained) = (&self.lengths, self.trained);
        if trained == 0 {
            return TrainedSide::Unknown;
        }
        match lengths.iter().filter(|&&length| length <= trained).count() {
            0 => TrainedSide::Left,
            n if n == lengths.len() && lengths[n - 1] < trained => TrainedSide::Right,
            n => TrainedSide::After(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trained_length_is_marked_between_columns() {
        let side = |trained: usize| {
            let figure = HeatFigure {
                title: String::new(),
                subtitle: String::new(),
                trained,
                threshold: 0.85,
                depth_title: String::new(),
                lengths: vec![512, 1024, 2048, 4096],
                depths: vec![0.5],
                panels: Vec::new(),
            };
            figure.trained_side()
        };
        assert_eq!(side(0), TrainedSide::Unknown);
        assert_eq!(side(511), TrainedSide::Left);
        assert_eq!(side(2048), TrainedSide::After(3));
        assert_eq!(side(4096), TrainedSide::After(4));
        assert_eq!(side(4097), TrainedSide::Right);
    }
}
