//! Where the console writes: lines on standard output, or on standard error when that is kept for one JSON object; and a
//! block of lines that is drawn again in place on a terminal.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::stop::Stop;
use crate::progress::Progress;

/// The console's output.
#[derive(Debug)]
pub(crate) struct Screen {
    json: bool,
    redraw: bool,
    stop: Stop,
    /// Lines of the block that was drawn last.
    drawn: AtomicUsize,
}

impl Screen {
    pub(crate) fn new(json: bool, plain: bool, stop: Stop) -> Self {
        let terminal = if json { stderr().is_terminal() } else { stdout().is_terminal() };
        Self { json, redraw: terminal && !plain, stop, drawn: AtomicUsize::new(0) }
    }

    /// Whether blocks are drawn in place.
    pub(super) fn redraws(&self) -> bool {
        self.redraw
    }

    /// Writes a line.
    pub(crate) fn line(&self, text: &str) {
        self.drawn.store(0, Ordering::Relaxed);
        self.write(&format!("{text}\n"));
    }

    /// Draws a block over the one before it.
    pub(super) fn block(&self, lines: &[String]) {
        let before = self.drawn.swap(lines.len(), Ordering::Relaxed);
        let up = if before > 0 { format!("\x1b[{before}A\x1b[J") } else { String::new() };
        // Without wrapping: a line that is too long for the terminal must not become two.
        self.write(&format!("\x1b[?7l{up}{}\n\x1b[?7h", lines.join("\n")));
    }

    fn write(&self, text: &str) {
        // A terminal that is gone is no reason to leave the site standing.
        let _ = if self.json {
            stderr().write_all(text.as_bytes())
        } else {
            stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush())
        };
    }
}

impl Progress for Screen {
    fn done(&self, what: &str, took: Duration) {
        self.line(&format!("✓ {what:<44} {:>5.1} s", took.as_secs_f32()));
    }

    fn note(&self, text: &str) {
        self.line(&format!("  {text}"));
    }

    fn cancelled(&self) -> bool {
        self.stop.asked()
    }
}
