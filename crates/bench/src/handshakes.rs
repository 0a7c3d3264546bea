//! TLS handshakes with a gateway, full and resumed, beside OpenSSL's own server.

use std::{io, sync::Arc, time::Instant};

use anyhow::Context as _;
use api::{
    NodeName,
    op::{JoinRequest, NodeJoin},
};
use rustls::{ClientConfig, HandshakeKind, client::Resumption};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vault::pki::{Algorithm, Csr};

use crate::{
    Bench,
    channel::{self, Papers},
    figures::Times,
    openssl::{OpenSsl, Shaken, VERSIONS},
    process,
    world::World,
};

/// Clients at once.
const CLIENTS: [usize; 2] = [1, 8];
/// Tickets that a client keeps: a server gives a few with each handshake, and each is good for one.
const TICKETS: usize = 8;

/// Measures clients of our own, and OpenSSL's against the gateway and against OpenSSL's server.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    println!("\nTLS handshakes with the gateway, each on a new connection that ends after it");
    let world = World::start(bench).await?;
    let papers = papers(&world).await?;
    println!("  TLS 1.3, rustls clients:");
    println!("  clients  handshake                                a second   p50 ms   p99 ms   gateway ms CPU each");
    for clients in CLIENTS {
        for (what, own, kind) in [
            ("full", false, HandshakeKind::Full),
            ("full, with a node's certificate", true, HandshakeKind::Full),
            ("resumed", false, HandshakeKind::Resumed),
        ] {
            let config = papers.config(own)?;
            let count = bench.size(4000, 40);
            let (cpu, begun) = (world.cpu()?, Instant::now());
            let times = many(&world, &config, clients, count, kind).await?;
            let (took, cpu) = (begun.elapsed().as_secs_f64(), world.cpu()?.since(cpu));
            println!(
                "  {clients:7}  {what:40} {:8.0}   {:6.2}   {:6.2}   {:19.3}",
                count as f64 / took,
                times.median(),
                times.share(0.99),
                cpu.own.as_secs_f64() * 1000.0 / count as f64
            );
        }
    }
    beside_openssl(bench, &world)
}

/// A node that joins, and has a certificate.
async fn papers(world: &World) -> anyhow::Result<Papers> {
    let csr = Csr::new(Algorithm::EcdsaP256)?;
    let request = JoinRequest {
        name: NodeName::new("handshakes"),
        exact: true,
        secret: None,
        certificate_request: Some(csr.request_pem),
    };
    let joined = world.client().await?.call::<NodeJoin>(&request).await?;
    Papers::new(&joined.certificate.context("no certificate was given")?, csr.key)
}

/// So many handshakes, all of one kind. Times are from connecting to the handshake's end.
async fn many(
    world: &World,
    config: &ClientConfig,
    clients: usize,
    count: usize,
    kind: HandshakeKind,
) -> anyhow::Result<Times> {
    let lanes = (0..clients).map(|lane| {
        let (authority, mut config) = (world.authority.clone(), config.clone());
        config.resumption = match kind {
            HandshakeKind::Resumed => Resumption::in_memory_sessions(TICKETS),
            _ => Resumption::disabled(),
        };
        let config = Arc::new(config);
        async move {
            if kind == HandshakeKind::Resumed {
                once(&authority, &config, HandshakeKind::Full).await?;
            }
            let mut times = Vec::new();
            for _ in (lane..count).step_by(clients) {
                times.push(once(&authority, &config, kind).await?);
            }
            Ok::<_, anyhow::Error>(times)
        }
    });
    let lanes: Vec<_> = lanes.map(tokio::spawn).collect();
    let mut times = Vec::new();
    for lane in lanes {
        times.extend(lane.await??);
    }
    Ok(Times::new(times))
}

async fn once(authority: &str, config: &Arc<ClientConfig>, kind: HandshakeKind) -> anyhow::Result<std::time::Duration> {
    let at = Instant::now();
    let mut stream = channel::shake_hands(authority, config).await?;
    let took = at.elapsed();
    let was = stream.get_ref().1.handshake_kind();
    anyhow::ensure!(was == Some(kind), "a handshake was {was:?} instead of {kind:?}");
    // In TLS 1.3 tickets come behind the handshake: they are read on the way to the connection's end.
    stream.shutdown().await?;
    match stream.read_to_end(&mut Vec::new()).await {
        // Whoever saw the other's end needn't say good-bye.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
        _ => Ok(took),
    }
}

/// The same client against both servers.
fn beside_openssl(bench: &Bench, world: &World) -> anyhow::Result<()> {
    let Some(openssl) = OpenSsl::find()? else {
        println!("  openssl isn't installed: no reference");
        return Ok(());
    };
    let server = openssl.server(world.folder())?;
    println!(
        "  {}: `openssl s_time`, one connection at a time, against the gateway and `openssl s_server` with a P-256 certificate:",
        openssl.version
    );
    println!("  version  handshake           gateway/s   ms CPU each   s_server/s   ms CPU each   gateway x s_server");
    let versions = VERSIONS.iter().take(bench.size(VERSIONS.len(), 1));
    for (version, resumes) in versions.flat_map(|version| [(version, false), (version, true)]) {
        let shake = |authority: &str, pid: u32| -> anyhow::Result<(f64, f64)> {
            let cpu = process::cpu(pid)?;
            let Shaken { count, took } = openssl.shake(authority, version, resumes, bench.size(3, 1))?;
            let cpu = process::cpu(pid)?.since(cpu).own;
            Ok((count / took.as_secs_f64(), cpu.as_secs_f64() * 1000.0 / count))
        };
        let (ours, our_cpu) = shake(&world.authority, world.gateway.pid())?;
        let (theirs, their_cpu) = shake(&server.authority, server.running.pid())?;
        println!(
            "  {:7}  {:18}  {ours:9.0}   {our_cpu:11.3}   {theirs:10.0}   {their_cpu:11.3}   {:18.2}",
            version.name,
            match resumes {
                true => "resumed, one GET",
                false => "full",
            },
            ours / theirs
        );
    }
    Ok(())
}
