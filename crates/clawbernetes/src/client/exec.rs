//! A command inside a workload: this process's standard streams, carried there and back.

use std::io::Write;

use api::{
    ApiError,
    op::{EXEC_PATH, ExecEnd, ExecStart},
};
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

use super::Client;
use crate::failure::Failure;

/// Bytes of input that are sent at once.
const INPUT_CHUNK: usize = 32 << 10;

impl Client {
    /// Runs a command in a workload with this process's standard input, output and error. Answers its exit code.
    ///
    /// # Errors
    /// That it couldn't run, or that the connection broke: what became of it isn't known then.
    pub(crate) async fn exec(&self, start: &ExecStart) -> Result<i32, Failure> {
        let hello = serde_json::to_string(start)
            .map_err(|error| ApiError::internal("the request can't be written").cause(error.to_string()))?;
        let mut socket = self.upgrade(EXEC_PATH).await?;
        let lost = |cause: &str| self.broken(cause, false);
        socket
            .send(Message::text(hello))
            .await
            .map_err(|error| lost(&error.to_string()))?;
        let (mut sink, mut frames) = socket.split();
        let input = async {
            let mut stdin = tokio::io::stdin();
            let mut buffer = vec![0u8; INPUT_CHUNK];
            loop {
                // A standard input that can't be read is one that has ended.
                let count = stdin.read(&mut buffer).await.unwrap_or(0);
                let chunk = bytes::Bytes::copy_from_slice(&buffer[..count]);
                if sink.send(Message::Binary(chunk)).await.is_err() || count == 0 {
                    // The output side tells what became of the command.
                    std::future::pending::<()>().await;
                }
            }
        };
        let output = async {
            while let Some(frame) = frames.next().await {
                match frame {
                    Ok(Message::Binary(bytes)) => match bytes.split_first() {
                        Some((1, data)) => {
                            let mut stdout = std::io::stdout();
                            stdout.write_all(data)?;
                            stdout.flush()?;
                        }
                        Some((2, data)) => std::io::stderr().write_all(data)?,
                        _ => {}
                    },
                    Ok(Message::Text(text)) => {
                        return match serde_json::from_str(&text) {
                            Ok(ExecEnd::Exit(code)) => Ok(code),
                            Ok(ExecEnd::Error(error)) => Err(error.into()),
                            Err(error) => Err(self.foreign(&error.to_string()).into()),
                        };
                    }
                    Ok(Message::Close(_)) => break,
                    Ok(_) => {}
                    Err(error) => return Err(lost(&error.to_string()).into()),
                }
            }
            Err(lost("it was closed before the command had ended").into())
        };
        tokio::select! {
            ended = output => ended,
            () = input => Ok(0),
        }
    }
}
