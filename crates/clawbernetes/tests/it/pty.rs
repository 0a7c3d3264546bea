//! A command in a pseudo-terminal: what it shows and asks where there is a person.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use crate::{cluster::wait_for, world::Home};

/// A command in a pseudo-terminal of 100 columns, and all that it wrote.
pub struct Pty {
    child: Child,
    written: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Pty {
    /// By `script`, which is part of every Debian, Fedora and Alpine with util-linux.
    pub fn start(home: &Home, line: &str) -> Self {
        let inner = home.command(line.split_whitespace());
        let program = inner.get_program().to_string_lossy().into_owned();
        let mut command = Command::new("script");
        command.env_clear().current_dir(home.path(""));
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let mut child = command
            .env("TERM", "xterm-256color")
            .arg("-qec")
            .arg(format!("stty cols 100 rows 30; exec {program} {line}"))
            .arg("/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let written = Arc::new(Mutex::new(String::new()));
        let (mut output, seen) = (child.stdout.take().unwrap(), written.clone());
        let reader = std::thread::spawn(move || {
            let mut bytes = [0u8; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                seen.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self {
            child,
            written,
            reader: Some(reader),
        }
    }

    /// All that it wrote so far.
    pub fn written(&self) -> String {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has written this.
    #[track_caller]
    pub fn wait_written(&self, text: &str) {
        wait_for(&format!("'{text}' to be written"), || {
            self.written().contains(text).then_some(())
        });
    }

    /// Types this.
    pub fn press(&mut self, keys: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(keys.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// Waits for its end; its exit status, and all that it wrote.
    pub fn end(mut self) -> (Option<i32>, String) {
        let status = wait_for("it to end", || self.child.try_wait().unwrap());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (status.code(), self.written())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
