//! [`Sender`]: sends files over one session, and over a new one after a file was broken off.
//!
//! Invariant: a file is closed only when all of it was read and sent, so whatever went wrong
//! before, the server discards it.

use std::io;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use fsq::{Client, Error, Options, StorageDest};

use crate::args::Request;
use crate::plan::Source;
use crate::report::Report;
use crate::source::{CHUNKS, Chunk, Reader};

/// How it went with one file.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Bytes sent.
    pub(crate) bytes: u64,
    pub(crate) taken: Duration,
    /// `None` if the server has acknowledged the file.
    pub(crate) error: Option<String>,
}

impl Outcome {
    pub(crate) fn failed(error: String) -> Self {
        Self { bytes: 0, taken: Duration::ZERO, error: Some(error) }
    }
}

/// Why a file was not sent.
enum Failure {
    /// The file cannot be read to its end.
    Source(io::Error),
    Session(Error),
}

pub(crate) struct Sender<'a> {
    options: &'a Options,
    fs: &'a [u8],
    dest: StorageDest,
    /// `None` after a file was broken off, until the next one.
    client: Option<Client>,
    is_gone: bool,
    /// Memory that is not in use, for the files to come.
    chunks: Vec<Chunk>,
    chunk_bytes: usize,
}

impl<'a> Sender<'a> {
    pub(crate) fn connect(request: &'a Request) -> Result<Self, Error> {
        Ok(Self {
            options: &request.options,
            fs: &request.fs,
            dest: request.dest,
            client: Some(Client::connect(&request.options)?),
            is_gone: false,
            chunks: Vec::new(),
            chunk_bytes: request.chunk_bytes,
        })
    }

    /// Whether no further file can be sent.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub(crate) fn send(&mut self, source: &Source, destination: &[u8], report: &Report) -> Outcome {
        let begin = Instant::now();
        let mut bytes = 0;
        let result = self.try_send(source, destination, &mut |sent| {
            bytes += sent;
            report.advance(sent);
        });
        let error = result.err().map(|failure| self.settle(failure));
        Outcome { bytes, taken: begin.elapsed(), error }
    }

    pub(crate) fn finish(self) {
        if let Some(client) = self.client {
            client.disconnect();
        }
    }

    /// Leaves the session fit for the next file, or the connection for good.
    fn settle(&mut self, failure: Failure) -> String {
        match failure {
            Failure::Source(error) => {
                // The protocol knows no "forget this file" but the end of the connection.
                if self.client.as_ref().is_some_and(Client::is_file_open) {
                    self.client = None;
                }
                error.to_string()
            }
            Failure::Session(error) => {
                match &mut self.client {
                    Some(client) if client.is_connected() => {
                        if client.is_file_open() {
                            // Gives the same refusal once more, which is already on its way to
                            // the user; only a lost connection is news, and it shows below.
                            let _ = client.close();
                        }
                        self.is_gone = !client.is_connected();
                    }
                    _ => self.is_gone = !matches!(error, Error::Barred(_)),
                }
                error.to_string()
            }
        }
    }

    fn try_send(
        &mut self,
        source: &Source,
        destination: &[u8],
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let mut reader = Reader::open(source).map_err(Failure::Source)?;
        let mut first = self.chunks.pop().unwrap_or_else(|| Chunk::new(self.chunk_bytes));
        // Before the OPEN, so that the server never hears of a file that cannot be read, nor of a
        // small one that changes its length.
        let read = reader.next(&mut first).map_err(Failure::Source);
        let result = read.and_then(|()| {
            self.open(destination)?;
            let rest = if first.is_full() { Some(reader) } else { None };
            self.stream(&first, rest, sent)
        });
        self.chunks.push(first);
        result?;
        self.client().close().map_err(Failure::Session)
    }

    fn open(&mut self, destination: &[u8]) -> Result<(), Failure> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(self.options).map_err(Failure::Session)?,
        };
        let client = self.client.insert(client);
        client.open(self.fs, destination, "", self.dest).map_err(Failure::Session)
    }

    fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("every file begins with a connection")
    }

    /// Sends the first chunk, and what `rest` reads meanwhile.
    fn stream(
        &mut self,
        first: &Chunk,
        rest: Option<Reader>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let Some(reader) = rest else {
            return write(self.client(), first, sent);
        };
        while self.chunks.len() < CHUNKS {
            self.chunks.push(Chunk::new(self.chunk_bytes));
        }
        let (give_empty, take_empty) = sync_channel(CHUNKS);
        let (give_full, take_full) = sync_channel(CHUNKS);
        for chunk in self.chunks.drain(..) {
            give_empty.send(chunk).expect("there is room for all and the receiver is here");
        }
        let reading = std::thread::Builder::new().name("fsqc-reader".to_owned());
        // Detached, so that a standard input that never ends cannot hold up the exit. The reader
        // ends with the channels: at the last chunk, or when this function is left.
        reading.spawn(move || reader.run(&take_empty, &give_full)).map_err(Failure::Source)?;
        write(self.client(), first, sent)?;
        for chunk in take_full {
            let chunk = chunk.map_err(Failure::Source)?;
            write(self.client(), &chunk, sent)?;
            if chunk.is_full() {
                // The reader may have ended at an error that is still in the queue.
                let _ = give_empty.send(chunk);
            } else {
                self.chunks.push(chunk);
            }
        }
        Ok(())
    }
}

fn write(client: &mut Client, chunk: &Chunk, sent: &mut dyn FnMut(u64)) -> Result<(), Failure> {
    client.write(chunk.bytes()).map_err(Failure::Session)?;
    sent(chunk.bytes().len() as u64);
    Ok(())
}
