//! `image explore`: the layers and files of an image on the terminal.
//!
//! ```text
//! input  bytes of the terminal -> keys          app   state; what keys and answers do to it
//! term   the terminal's modes, cells -> bytes   tree  all files of all layers, and what shows at one
//! view   state -> cells                         pager one file
//! ```
//!
//! This file asks the daemon and waits; all else is a function of the state.

mod app;
mod input;
mod pager;
mod term;
#[cfg(test)]
mod tests;
mod tree;
mod view;

use std::io::{self, IsTerminal, Read};
use std::time::Duration;

use longshore_api::layers::{FileStat, ImageLayers, LayerFile};
use ratatui_core::terminal::Terminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::app::{App, Effect};
use self::input::Keys;
use self::term::{Ansi, Screen};
use self::view::Theme;
use crate::client::{Client, each_chunk};
use crate::commands::layers::{ask, ask_json, lines, of_image};
use crate::error::{Context, Failure, Result};

/// Bytes of a file that are shown at most.
const SHOWN: usize = 1 << 20;
/// Rows that are handed over at once.
const BATCH: usize = 1000;
/// After this time an escape character was a key.
const ESCAPE: Duration = Duration::from_millis(40);

/// What arrives from outside.
enum News {
    Typed(Vec<u8>),
    /// Standard input is closed.
    Closed,
    Files(usize, Vec<LayerFile>),
    Loaded(usize),
    Failed(usize, String),
    Read(Vec<u8>, std::result::Result<(Vec<u8>, u64), String>),
}

/// Runs it until the user leaves.
pub(crate) async fn explore(c: &Client, image: &str) -> Result<()> {
    let both = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !both || std::env::var("TERM").is_ok_and(|t| t == "dumb") {
        return Err(Failure::new(
            "explore needs a terminal that can be drawn on; `image layers` and `image which` need none",
        ));
    }
    let about: ImageLayers = ask_json(c, &of_image(image, "layers", &[])).await?;
    let mut app = App::new(image, about);
    // What the daemon told of is that very image, whatever its name comes to mean.
    let session = Session { client: c.clone(), image: app.about.id.clone() };
    let screen = Screen::enter().context(|| "take the terminal".into())?;
    let Some(screen) = screen else { return Err(Failure::new("standard input is no terminal")) };
    let done = session.run(&mut app, &screen).await;
    drop(screen);
    done
}

struct Session {
    client: Client,
    image: String,
}

/// How the terminal wants to be drawn on.
fn theme() -> Theme {
    let given = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let locale = given("LC_ALL").or_else(|| given("LC_CTYPE")).or_else(|| given("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    Theme { colours: given("NO_COLOR").is_none(), signs: locale.contains("utf-8") || locale.contains("utf8") }
}

fn failed(e: impl std::fmt::Display) -> Failure {
    Failure::new(format!("draw on the terminal: {e}"))
}

impl Session {
    async fn run(&self, app: &mut App, screen: &Screen) -> Result<()> {
        let theme = theme();
        let mut terminal = Terminal::new(Ansi::default()).map_err(failed)?;
        let (send, mut news) = mpsc::channel(16);
        self.load((0..app.loads.len()).collect(), &send);
        read_keys(send.clone());
        let mut sizes = signal(SignalKind::window_change()).context(|| "wait for signals".into())?;
        let mut ends = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()].map(signal);
        let mut keys = Keys::default();
        loop {
            terminal
                .draw(|frame| {
                    let area = frame.area();
                    if let Some(panes) = view::panes(area, app.focus) {
                        let (layers, files, whole) = panes.sizes();
                        app.resize(layers, files, whole);
                    }
                    view::draw(app, theme, frame.buffer_mut());
                })
                .map_err(failed)?;
            let [term, hup, int] = &mut ends;
            let typed = tokio::select! {
                _ = sizes.recv() => continue,
                () = ended(term) => return Err(Failure::exit(143)),
                () = ended(hup) => return Err(Failure::exit(129)),
                () = ended(int) => return Err(Failure::exit(130)),
                () = tokio::time::sleep(ESCAPE), if keys.waits() => keys.give_up(),
                item = news.recv() => match item {
                    Some(News::Typed(bytes)) => keys.feed(&bytes),
                    Some(News::Closed) | None => return Ok(()),
                    Some(item) => {
                        take(app, item);
                        continue;
                    }
                },
            };
            for key in typed {
                match app.key(key) {
                    None => {}
                    Some(Effect::Quit) => return Ok(()),
                    Some(Effect::Suspend) => {
                        screen.suspend().context(|| "leave the terminal for a while".into())?;
                        terminal.clear().map_err(failed)?;
                    }
                    Some(Effect::Redraw) => terminal.clear().map_err(failed)?,
                    Some(Effect::Copy(path)) => term::copy(&path).map_err(failed)?,
                    Some(Effect::Read { path, layer }) => self.read(path, layer, &send),
                    Some(Effect::Load(layers)) => self.load(layers, &send),
                }
            }
        }
    }

    /// Asks for the files of layers, one after the other.
    fn load(&self, layers: Vec<usize>, send: &mpsc::Sender<News>) {
        let (client, image, send) = (self.client.clone(), self.image.clone(), send.clone());
        tokio::spawn(async move {
            for layer in layers {
                let item = match load_layer(&client, &image, layer, &send).await {
                    Ok(()) => News::Loaded(layer),
                    Err(e) => News::Failed(layer, e.message),
                };
                if send.send(item).await.is_err() {
                    return;
                }
            }
        });
    }

    fn read(&self, path: Vec<u8>, layer: usize, send: &mpsc::Sender<News>) {
        let (client, image, send) = (self.client.clone(), self.image.clone(), send.clone());
        tokio::spawn(async move {
            let answer = read_file(&client, &image, &path, layer).await.map_err(|e| e.message);
            let _ = send.send(News::Read(path, answer)).await;
        });
    }
}

/// Resolves when a signal comes; never where it cannot be waited for.
async fn ended(signal: &mut io::Result<tokio::signal::unix::Signal>) {
    match signal {
        Ok(signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

fn take(app: &mut App, item: News) {
    match item {
        News::Files(layer, files) => app.files(layer, files),
        News::Loaded(layer) => app.loaded(layer),
        News::Failed(layer, why) => app.failed(layer, &why),
        News::Read(path, answer) => app.read(&path, answer),
        News::Typed(_) | News::Closed => {}
    }
}

/// Reads the terminal on a thread of its own, which ends with the program.
fn read_keys(send: mpsc::Sender<News>) {
    std::thread::spawn(move || {
        let mut buf = [0u8; 1024];
        let mut input = io::stdin().lock();
        loop {
            let item = match input.read(&mut buf) {
                Ok(0) => News::Closed,
                Ok(n) => News::Typed(buf[..n].to_vec()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => News::Closed,
            };
            let last = matches!(item, News::Closed);
            if send.blocking_send(item).is_err() || last {
                return;
            }
        }
    });
}

async fn load_layer(c: &Client, image: &str, layer: usize, send: &mpsc::Sender<News>) -> Result<()> {
    let number = (layer + 1).to_string();
    let answer = ask(c, &of_image(image, "files", &[("layer", &number)])).await?;
    // Lines are read faster than they are shown: all of one layer is held, and handed over in pieces.
    let mut files: Vec<LayerFile> = Vec::new();
    lines(answer, |line| {
        files.push(serde_json::from_str(line).context(|| "the daemon's answer is not understood".into())?);
        Ok(())
    })
    .await?;
    let mut files = files.into_iter();
    loop {
        let batch: Vec<LayerFile> = files.by_ref().take(BATCH).collect();
        if batch.is_empty() || send.send(News::Files(layer, batch)).await.is_err() {
            return Ok(());
        }
    }
}

async fn read_file(c: &Client, image: &str, path: &[u8], layer: usize) -> Result<(Vec<u8>, u64)> {
    use base64::Engine as _;
    let path = base64::engine::general_purpose::STANDARD.encode(path);
    let (number, limit) = ((layer + 1).to_string(), SHOWN.to_string());
    let pairs = [("path64", path.as_str()), ("layer", number.as_str()), ("limit", limit.as_str())];
    let answer = ask(c, &of_image(image, "file", &pairs)).await?;
    let stat = answer.headers().get(FileStat::HEADER).and_then(|v| v.to_str().ok());
    let size = stat.and_then(FileStat::from_header).map_or(0, |s| s.file.size);
    let mut bytes = Vec::new();
    each_chunk(answer, |chunk| {
        bytes.extend_from_slice(&chunk[..chunk.len().min(SHOWN - bytes.len())]);
        Ok(())
    })
    .await?;
    Ok((bytes, size))
}
