//! Memory of outputs: written by several threads at once, and not initialised before.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Memory for an output, not yet initialised.
pub struct Unwritten(Vec<f32>, usize);

impl Unwritten {
    /// Room for `len` values.
    pub fn new(len: usize) -> Self {
        Unwritten(Vec::with_capacity(len), len)
    }

    pub fn values(&mut self) -> &mut [MaybeUninit<f32>] {
        &mut self.0.spare_capacity_mut()[..self.1]
    }

    /// # Safety
    /// Every value must have been written.
    pub unsafe fn assume_written(mut self) -> Vec<f32> {
        // SAFETY: `new` reserved as many, and the caller has written them.
        unsafe { self.0.set_len(self.1) };
        self.0
    }
}

/// A value of an output: initialised, or not yet.
///
/// # Safety
/// Implementors have the layout of f32, and every f32 is valid for them.
pub unsafe trait Slot: Send {}

// SAFETY: it is f32.
unsafe impl Slot for f32 {}
// SAFETY: `MaybeUninit<T>` has the layout of `T` and is valid whatever it holds.
unsafe impl Slot for MaybeUninit<f32> {}

/// Exclusive access to a block of a row-major matrix: some of its rows, and some columns of each.
///
/// Invariant: for `'a`, nobody else reads or writes the `shape[1]` values from each of the
/// addresses `first + i * stride`, `i < shape[0]`, and all of them lie in one allocation. `stride`
/// is at least `shape[1]`, so rows do not overlap.
pub struct OutputBlock<'a, T> {
    first: *mut T,
    shape: [usize; 2],
    stride: usize,
    memory: PhantomData<&'a mut [T]>,
}

impl<'a, T: Slot> OutputBlock<'a, T> {
    /// All of a matrix `[values.len() / columns, columns]`.
    pub fn new(values: &'a mut [T], columns: usize) -> Self {
        let rows = values.len().checked_div(columns).unwrap_or(0);
        assert_eq!(values.len(), rows * columns, "whole rows of {columns}");
        OutputBlock {
            first: values.as_mut_ptr(),
            shape: [rows, columns],
            stride: columns,
            memory: PhantomData,
        }
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Distance between rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The first value, for writes inside the block's rows and, where `T` is f32, reads.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.first.cast()
    }

    pub fn row(&mut self, i: usize) -> &mut [T] {
        assert!(i < self.shape[0], "row {i} of {}", self.shape[0]);
        // SAFETY: a row of the block, which the invariant reserves for `self`.
        unsafe {
            let row = self.first.add(i * self.stride);
            std::slice::from_raw_parts_mut(row, self.shape[1])
        }
    }

    /// A block inside this one.
    pub fn part(&mut self, rows: Range<usize>, columns: Range<usize>) -> OutputBlock<'_, T> {
        self.check(&rows, &columns);
        OutputBlock {
            first: self.at(rows.start, columns.start),
            shape: [rows.len(), columns.len()],
            stride: self.stride,
            memory: PhantomData,
        }
    }

    /// Cuts the block into a grid of blocks of at most `size` rows and columns.
    pub fn grid(self, size: [usize; 2]) -> OutputGrid<'a, T> {
        let blocks = [0, 1].map(|axis| self.shape[axis].div_ceil(size[axis]));
        let taken = (0..blocks[0] * blocks[1]).map(|_| AtomicBool::new(false));
        OutputGrid {
            taken: taken.collect(),
            whole: self,
            size,
            blocks,
        }
    }

    fn check(&self, rows: &Range<usize>, columns: &Range<usize>) {
        for (range, len) in [rows, columns].into_iter().zip(self.shape) {
            let inside = range.start <= range.end && range.end <= len;
            assert!(inside, "{rows:?} x {columns:?} of a block {:?}", self.shape);
        }
    }

    /// May point past the end of the memory where nothing follows; only then is it not
    /// dereferenced.
    fn at(&self, row: usize, column: usize) -> *mut T {
        self.first.wrapping_add(row * self.stride + column)
    }
}

/// A grid of disjoint blocks of one output, from which threads take those that they write.
pub struct OutputGrid<'a, T> {
    whole: OutputBlock<'a, T>,
    size: [usize; 2],
    blocks: [usize; 2],
    taken: Vec<AtomicBool>,
}

// SAFETY: the one thing that can be done through a shared grid is to take blocks. Two positions of
// the grid have no value in common, and `take` gives out each position once, so no two threads
// reach the same value. The values themselves may be sent (`Slot: Send`).
unsafe impl<T: Slot> Sync for OutputGrid<'_, T> {}

impl<'a, T: Slot> OutputGrid<'a, T> {
    /// Blocks along rows and along columns.
    pub fn blocks(&self) -> [usize; 2] {
        self.blocks
    }

    /// Rows and columns of the block at a position.
    pub fn ranges(&self, position: [usize; 2]) -> [Range<usize>; 2] {
        [0, 1].map(|axis| {
            let start = position[axis] * self.size[axis];
            start..(start + self.size[axis]).min(self.whole.shape[axis])
        })
    }

    /// The block at a position, which belongs to the caller from now on.
    ///
    /// # Panics
    /// If it was taken before.
    pub fn take(&self, position: [usize; 2]) -> OutputBlock<'a, T> {
        let inside = position[0] < self.blocks[0] && position[1] < self.blocks[1];
        assert!(inside, "block {position:?} of a grid {:?}", self.blocks);
        // Which of two threads comes first needs no other memory: a relaxed exchange is enough.
        let before = &self.taken[position[0] * self.blocks[1] + position[1]];
        assert!(
            !before.swap(true, Ordering::Relaxed),
            "block {position:?} was taken before"
        );
        let [rows, columns] = self.ranges(position);
        OutputBlock {
            first: self.whole.at(rows.start, columns.start),
            shape: [rows.len(), columns.len()],
            stride: self.whole.stride,
            memory: PhantomData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_output_once() {
        let mut values = vec![0f32; 7 * 10];
        let mut whole = OutputBlock::new(&mut values, 10);
        let grid = whole.part(1..7, 2..10).grid([4, 3]);
        assert_eq!(grid.blocks(), [2, 3]);
        for at in 0..6 {
            let mut block = grid.take([at / 3, at % 3]);
            for i in 0..block.shape()[0] {
                block.row(i).iter_mut().for_each(|x| *x += 1.0);
            }
        }
        for (at, x) in values.iter().enumerate() {
            let inside = at / 10 >= 1 && at % 10 >= 2;
            assert_eq!(*x, f32::from(inside), "value {at}");
        }
    }

    #[test]
    #[should_panic(expected = "taken before")]
    fn no_block_is_given_out_twice() {
        let mut values = [0f32; 4];
        let grid = OutputBlock::new(&mut values, 2).grid([1, 2]);
        let _first = grid.take([1, 0]);
        grid.take([1, 0]);
    }

    #[test]
    #[should_panic(expected = "of a block")]
    fn no_part_reaches_outside() {
        OutputBlock::new(&mut [0f32; 6], 3).part(0..2, 1..4);
    }
}
