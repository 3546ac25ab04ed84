//! The keys: one table that both carries them out and explains them.

use super::layout::Panel;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    Quit,
    Help,
    NextPanel(isize),
    Choose(Panel),
    Zoom,
    Back,
    LogScale,
    Smoothing,
    NextClass,
    NextStage,
    Pin,
    Theme,
    Search,
    Match(isize),
    Scroll(isize),
    /// Hold still, or go on.
    Hold,
    Epoch(f64),
    Event(i64),
    Begin,
    End,
    Faster(f64),
    /// Asked of the run: hold still or go on, and save now.
    Pause,
    Save,
    Mouse,
}

impl Action {
    /// Whether it is a wish to the run, for who started it.
    pub fn steers(self) -> bool {
        matches!(self, Action::Pause | Action::Save)
    }
}

pub struct Key {
    /// As typed; a letter stands for itself whether or not shift is what it takes to type it.
    codes: &'static [KeyCode],
    pub shown: &'static str,
    pub help: &'static str,
    pub action: Action,
}

const fn key(codes: &'static [KeyCode], shown: &'static str, help: &'static str, action: Action) -> Key {
    Key { codes, shown, help, action }
}

use KeyCode::{BackTab, Char, Down, Enter, Esc, Home, Left, PageDown, PageUp, Right, Tab, Up};

/// What [`Action::Quit`] does where the run can be steered.
pub const STOP_HELP: &str = "stop, saving (twice: now)";

pub const KEYS: &[Key] = &[
    key(&[Char('q')], "q", "leave (the run goes on)", Action::Quit),
    key(&[Char('?'), Char('h')], "?", "this help", Action::Help),
    key(&[Esc], "Esc", "back: help, search, zoom", Action::Back),
    key(&[Tab], "Tab", "next panel", Action::NextPanel(1)),
    key(&[BackTab], "Shift-Tab", "previous panel", Action::NextPanel(-1)),
    key(&[Char('1')], "1", "loss", Action::Choose(Panel::Loss)),
    key(&[Char('2')], "2", "confidence", Action::Choose(Panel::Confidence)),
    key(&[Char('3')], "3", "candidates", Action::Choose(Panel::Board)),
    key(&[Char('4')], "4", "classes", Action::Choose(Panel::Classes)),
    key(&[Char('5')], "5", "confusion", Action::Choose(Panel::Confusion)),
    key(&[Char('6')], "6", "labels", Action::Choose(Panel::Labels)),
    key(&[Char('7')], "7", "numbers", Action::Choose(Panel::Numbers)),
    key(&[Char('8')], "8", "pictures of pretraining", Action::Choose(Panel::Pictures)),
    key(&[Char('9')], "9", "log", Action::Choose(Panel::Log)),
    key(&[Char('z'), Enter], "z", "zoom the panel in or out", Action::Zoom),
    key(&[Char('g')], "g", "another stage of the run", Action::NextStage),
    key(&[Char('l')], "l", "loss on a logarithmic scale", Action::LogScale),
    key(&[Char('s')], "s", "smoothing of the loss", Action::Smoothing),
    key(&[Char('c')], "c", "one class, the next, all", Action::NextClass),
    key(&[Char('p')], "p", "pin a face, the next, none", Action::Pin),
    key(&[Char('t')], "t", "theme", Action::Theme),
    key(&[Char('/')], "/", "search the log", Action::Search),
    key(&[Char('n')], "n", "next match upwards", Action::Match(1)),
    key(&[Char('N')], "N", "next match downwards", Action::Match(-1)),
    key(&[Up], "Up", "scroll the log", Action::Scroll(1)),
    key(&[Down], "Down", "scroll the log", Action::Scroll(-1)),
    key(&[PageUp], "PgUp", "scroll the log by a page", Action::Scroll(10)),
    key(&[PageDown], "PgDn", "scroll the log by a page", Action::Scroll(-10)),
    key(&[Char(' ')], "Space", "hold the view still, go on", Action::Hold),
    key(&[Left], "Left", "one epoch back", Action::Epoch(-1.0)),
    key(&[Right], "Right", "one epoch on", Action::Epoch(1.0)),
    key(&[Char('[')], "[", "ten epochs back", Action::Epoch(-10.0)),
    key(&[Char(']')], "]", "ten epochs on", Action::Epoch(10.0)),
    key(&[Char(',')], ",", "one event back", Action::Event(-1)),
    key(&[Char('.')], ".", "one event on", Action::Event(1)),
    key(&[Home], "Home", "to the beginning", Action::Begin),
    key(&[KeyCode::End, Char('f')], "End", "follow the newest event", Action::End),
    key(&[Char('+'), Char('=')], "+", "play twice as fast", Action::Faster(2.0)),
    key(&[Char('-')], "-", "play half as fast", Action::Faster(0.5)),
    key(&[Char('P')], "P", "training: pause, go on", Action::Pause),
    key(&[Char('S')], "S", "training: save a checkpoint", Action::Save),
    key(&[Char('m')], "m", "mouse on or off", Action::Mouse),
];

/// What a key does, outside of typing.
pub fn action(event: KeyEvent) -> Option<Action> {
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(event.code, Char('c' | 'd')).then_some(Action::Quit);
    }
    KEYS.iter().find(|key| key.codes.contains(&event.code)).map(|key| key.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things() {
        let codes: Vec<KeyCode> = KEYS.iter().flat_map(|key| key.codes).copied().collect();
        for (i, code) in codes.iter().enumerate() {
            assert!(!codes[i + 1..].contains(code), "{code}");
        }
        assert_eq!(Panel::ALL.map(|p| KEYS.iter().filter(|key| key.action == Action::Choose(p)).count()), [1; 9]);
    }

    #[test]
    fn control_c_leaves_although_c_chooses_a_class() {
        let press = |code, modifiers| action(KeyEvent::new(code, modifiers));
        assert_eq!(press(Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(press(Char('c'), KeyModifiers::NONE), Some(Action::NextClass));
        assert_eq!(press(Char('N'), KeyModifiers::SHIFT), Some(Action::Match(-1)));
        assert_eq!(press(Char('y'), KeyModifiers::NONE), None);
    }
}
