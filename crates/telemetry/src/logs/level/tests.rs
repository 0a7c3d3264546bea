//! Lines as programs write them.

use super::*;

fn one(text: &str) -> Option<Level> {
    Detector::default().next(text.as_bytes(), false)
}

/// Levels of single lines, by format.
#[test]
fn formats() {
    let table: &[(&str, &[(&str, Option<Level>)])] = &[
        (
            "JSON",
            &[
                (
                    r#"{"level":"info","ts":1739714400.1,"msg":"started"}"#,
                    Some(Level::Info),
                ),
                (
                    r#"{"ts":"2026-02-16T14:00:00Z","message":"a long one: yes","level":"ERROR"}"#,
                    Some(Level::Error),
                ),
                (r#"{"severity": "WARNING", "textPayload": "slow"}"#, Some(Level::Warn)),
                (
                    r#"{"level":30,"time":1531171074631,"msg":"hello","pid":657}"#,
                    Some(Level::Info),
                ),
                (r#"{"level":50,"msg":"pino error"}"#, Some(Level::Error)),
                (
                    r#"{"version":"1.1","host":"a","short_message":"x","level":3}"#,
                    Some(Level::Error),
                ),
                (
                    r#"{"@timestamp":"2026-02-16","log.level":"fatal","message":"x"}"#,
                    Some(Level::Fatal),
                ),
                (
                    r#"{"asctime": "2026-02-16", "levelname": "DEBUG", "message": "x"}"#,
                    Some(Level::Debug),
                ),
                (
                    r#"{"timestamp":"2026-02-16T14:00:00Z","level":"TRACE","fields":{"message":"x"}}"#,
                    Some(Level::Trace),
                ),
                // The level of what is quoted is not the line's.
                (r#"{"msg":"got {\"level\":\"error\"}","n":1}"#, None),
                (r#"{"step":5,"loss":0.25}"#, None),
                (r#"{"error":null,"ok":true}"#, None),
            ],
        ),
        (
            "logfmt",
            &[
                (
                    r#"time="2026-02-16T14:00:00Z" level=warning msg="no route" id=7"#,
                    Some(Level::Warn),
                ),
                (
                    "ts=2026-02-16T14:00:00Z caller=main.go:12 level=error err=EOF",
                    Some(Level::Error),
                ),
                ("lvl=dbug msg=x", Some(Level::Debug)),
                (r#"level="info" msg="x""#, Some(Level::Info)),
                ("step=5 loss=0.25 noise_level=high level=7", None),
                ("sealevel=error", None),
            ],
        ),
        (
            "klog",
            &[
                (
                    "I0216 14:00:00.123456   12345 controller.go:114] syncing",
                    Some(Level::Info),
                ),
                (
                    "W0216 14:00:00.123456       1 reflector.go:533] failed to list",
                    Some(Level::Warn),
                ),
                (
                    "E0216 14:00:00.123456       1 leaderelection.go:330] lost",
                    Some(Level::Error),
                ),
                (
                    "F0216 14:00:00.123456       1 main.go:1] cannot go on",
                    Some(Level::Fatal),
                ),
                (
                    "E0000 00:00:1739714400.000000 123 cuda_dnn.cc:8310] Unable to register cuDNN",
                    Some(Level::Error),
                ),
                (
                    "[W socket.cpp:436] [c10d] The server socket cannot be initialized",
                    Some(Level::Warn),
                ),
                ("[rank3]:[E216 14:00:00 x", None),
                (
                    "[rank0]:[E1121 14:00:00.123456789 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout",
                    Some(Level::Error),
                ),
                ("W0", None),
                ("Epoch 5: loss 0.1", None),
                ("I0216 is no date", None),
            ],
        ),
        (
            "Python",
            &[
                ("WARNING:root:low disk", Some(Level::Warn)),
                (
                    "2026-02-16 14:00:00,123 - trainer.loop - ERROR - diverged",
                    Some(Level::Error),
                ),
                ("2026-02-16 14:00:00,123 INFO trainer: step 5", Some(Level::Info)),
                ("[2026-02-16 14:00:00,123][trainer][DEBUG] - x", Some(Level::Debug)),
                (
                    "2026-02-16 14:00:00.123 | SUCCESS  | __main__:<module>:3 - done",
                    Some(Level::Info),
                ),
                ("CRITICAL:app:gone", Some(Level::Fatal)),
                (
                    "/usr/lib/python3/site-packages/torch/cuda.py:12: UserWarning: CUDA initialization: x",
                    Some(Level::Warn),
                ),
                (
                    "[02/16/26 14:00:00] WARNING  slow                    main.py:12",
                    Some(Level::Warn),
                ),
                ("KeyError: 'x'", Some(Level::Error)),
                (
                    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
                    Some(Level::Error),
                ),
                ("KeyboardInterrupt", Some(Level::Error)),
            ],
        ),
        (
            "Rust",
            &[
                (
                    "2026-02-16T14:00:00.123456Z  INFO gateway::serve: listening addr=[::]:9000",
                    Some(Level::Info),
                ),
                ("2026-02-16T14:00:00.123456Z ERROR gateway: failed", Some(Level::Error)),
                (
                    "\x1b[2m2026-02-16T14:00:00.1Z\x1b[0m \x1b[33m WARN\x1b[0m \x1b[2mgateway\x1b[0m: slow",
                    Some(Level::Warn),
                ),
                ("\x1b[31mERROR\x1b[0m x", Some(Level::Error)),
                ("[2026-02-16T14:00:00Z TRACE mio::poll] registering", Some(Level::Trace)),
                ("thread 'main' panicked at 'boom', src/main.rs:2:5", Some(Level::Error)),
                ("error: could not compile `x`", Some(Level::Error)),
                ("warning: unused variable: `x`", Some(Level::Warn)),
            ],
        ),
        (
            "prefixes",
            &[
                ("ERROR something", Some(Level::Error)),
                ("[error] 123#0: *1 open() failed", Some(Level::Error)),
                (
                    "2026/02/16 14:00:00 [warn] 7#7: conflicting server name",
                    Some(Level::Warn),
                ),
                ("<FATAL> out", Some(Level::Fatal)),
                ("DEBUG: x", Some(Level::Debug)),
                ("14:00:00.123 [main] ERROR com.example.App - no", Some(Level::Error)),
                ("slurmstepd: error: Detected 1 oom_kill event", Some(Level::Error)),
                ("main.c:3:5: error: expected ';'", Some(Level::Error)),
                ("fatal: not a git repository", Some(Level::Fatal)),
                ("  WARN  indented", Some(Level::Warn)),
                ("Error: no such file", Some(Level::Error)),
                ("npm ERR! code E404", Some(Level::Error)),
                // No levels: words in running text, measurements, names.
                ("step 5 loss 0.1 error 0.2", None),
                ("Error: 0.0513", None),
                ("validation error: 0.05", None),
                ("no error so far", None),
                ("INFORMATION_SCHEMA is missing", None),
                ("set LOG_LEVEL=INFO to see more", None),
                ("ERROR_RATE 5", None),
                ("GPU 3 at 61 C, ETA 3h", None),
                ("Errors: none", None),
                ("informational text", None),
                ("", None),
                (" ", None),
            ],
        ),
        (
            "CUDA and NCCL",
            &[
                (
                    "RuntimeError: CUDA error: an illegal memory access was encountered",
                    Some(Level::Error),
                ),
                ("gpu-1:123:456 [0] NCCL INFO Bootstrap : Using eth0", Some(Level::Info)),
                (
                    "gpu-1:123:456 [0] transport/net.cc:7 NCCL WARN Cuda failure 'out of memory'",
                    Some(Level::Error),
                ),
                (
                    "gpu-1:123:456 [0] NCCL WARN Call to ibv_modify_qp failed",
                    Some(Level::Error),
                ),
                ("cublas call failed with CUBLAS_STATUS_ALLOC_FAILED", Some(Level::Error)),
                (
                    "[ 1234.5] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
                    Some(Level::Error),
                ),
                ("ncclInternalError: Internal check failed.", Some(Level::Error)),
                ("CUDA version 13.0, NCCL 2.27", None),
            ],
        ),
    ];
    for (format, lines) in table {
        for (line, level) in *lines {
            assert_eq!(one(line), *level, "{format}: {line}");
        }
    }
}

/// Each line with its level: `E ` is an error and so on, `. ` none.
fn check(sample: &str) {
    let mut detector = Detector::default();
    for line in sample.lines().filter(|line| line.len() > 1) {
        let (mark, text) = (&line[..1], line.get(2..).unwrap_or(""));
        // Through its number, as between two batches.
        detector = Detector::decode(detector.encode());
        let level = detector.next(text.as_bytes(), false);
        let seen = level.map_or(".".to_owned(), |level| level.name()[..1].to_uppercase());
        assert_eq!(seen, mark, "{text}\nin\n{sample}");
    }
}

#[test]
fn a_python_traceback_is_whole() {
    check(
        "\
. step 12
E Traceback (most recent call last):
E   File \"/app/train.py\", line 40, in <module>
E     logger.info(\"INFO: fine\")
E     ~~~~~~~~~~~^^^^^^^^^^^^^^
E   File \"/app/model.py\", line 7, in forward
E     raise ValueError('bad')
E ValueError: bad
E 
E During handling of the above exception, another exception occurred:
E 
E Traceback (most recent call last):
E   File \"/app/train.py\", line 44, in <module>
E     main()
E RuntimeError: CUDA error: device-side assert triggered
E CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
E For debugging consider passing CUDA_LAUNCH_BLOCKING=1
E Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
E 
. step 13
.   indented
",
    );
}

#[test]
fn a_traceback_under_a_launcher_and_a_logger_is_whole() {
    check(
        "\
E ERROR:root:training failed
E [rank3]: Traceback (most recent call last):
E [rank3]:   File \"/app/train.py\", line 40, in <module>
E [rank3]:     loss.backward()
E [rank3]: torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2251, unhandled cuda error
E [rank3]: ncclUnhandledCudaError: Call to CUDA function failed.
E [rank3]: Last error:
E [rank3]: Cuda failure 'out of memory'
. [rank3]: step 14
"
        .replace("E [rank3]: Cuda failure", ". [rank3]: Cuda failure")
        .as_str(),
    );
}

#[test]
fn panics_of_rust_and_go_are_whole() {
    check(
        "\
. started
E thread 'main' panicked at src/main.rs:12:5:
E assertion `left == right` failed: no
E   left: 1
E  right: 2
E stack backtrace:
E    0: std::panicking::begin_panic_handler
E              at /rustc/1/library/std/src/panicking.rs:697:5
E note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.
. done
",
    );
    check(
        "\
F panic: runtime error: index out of range [5] with length 3
F 
F goroutine 1 [running]:
F main.main()
F \t/app/main.go:8 +0x1d
F exit status 2
. next
",
    );
}

#[test]
fn stacks_of_java_and_cpp_are_whole() {
    check(
        "\
E Exception in thread \"main\" java.lang.IllegalStateException: no
E \tat com.example.App.run(App.java:10)
E Caused by: java.io.IOException: closed
E \t... 12 more
I 12:00:00 INFO com.example.App - restarted
",
    );
    check(
        "\
E terminate called after throwing an instance of 'c10::Error'
E   what():  CUDA error: unspecified launch failure
E Exception raised from c10_cuda_check_implementation at CUDAException.cpp:43 (most recent call first):
E frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x96 (0x7f in libc10.so)
E frame #1: <unknown function> + 0x1 (0x7f in libtorch.so)
E 
. step 3
",
    );
}

#[test]
fn indented_lines_count_with_their_leader() {
    check(
        "\
W 2026-02-16 14:00:00,1 - x - WARNING - shapes differ:
W     expected (3, 4)
W     got (4, 3)
D   DEBUG: says so itself
.   after that
. plain
.   indented plain
D DEBUG: state
D   a: 1

.   after an empty line
"
        .replace("\n\n", "\n. \n")
        .as_str(),
    );
    let mut detector = Detector::default();
    assert_eq!(detector.next(b"ERROR: it", false), Some(Level::Error));
    let indented = (0..1000).filter(|_| detector.next(b"  x", false).is_some()).count();
    assert_eq!(indented, usize::from(INDENTED_MAX));
}

#[test]
fn the_rest_of_a_long_line_has_its_level() {
    let mut detector = Detector::default();
    assert_eq!(detector.next(b"ERROR: a long", true), Some(Level::Error));
    detector = Detector::decode(detector.encode());
    assert_eq!(detector.next(b"INFO is in it", true), Some(Level::Error));
    assert_eq!(detector.next(b"and its end", false), Some(Level::Error));
    assert_eq!(detector.next(b"plain", true), None);
    assert_eq!(detector.next(b"ERROR within", false), None);
    assert_eq!(detector.next(b"ERROR: own", false), Some(Level::Error));
}

#[test]
fn names_survive() {
    for level in Level::ALL {
        assert_eq!(level.name().parse(), Ok(level));
        assert_eq!(Level::from_code(Level::code(Some(level))), Some(level));
    }
    assert_eq!(Level::from_code(0), None);
    assert_eq!("loud".parse::<Level>(), Err(LevelError));
    assert_eq!(Detector::decode(Detector::default().encode()), Detector::default());
}

proptest::proptest! {
    /// Any bytes have some level or none, and the state survives its number.
    #[test]
    fn any_bytes(lines in proptest::collection::vec((proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60), proptest::prelude::any::<bool>()), 0..20)) {
        let mut detector = Detector::default();
        for (text, partial) in lines {
            let mut copy = Detector::decode(detector.encode());
            proptest::prop_assert_eq!(copy, detector);
            proptest::prop_assert_eq!(copy.next(&text, partial), detector.next(&text, partial));
        }
    }
}
