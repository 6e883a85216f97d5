use std::sync::atomic::Ordering;

use bus::shutdown::GRACE;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

/// A server at which one node is.
struct Bench {
    socket: UdpSocket,
    endpoint: Endpoint,
    /// What was posted, as path and text.
    posts: Vec<(String, String)>,
    node: SocketAddr,
    uid: String,
    links: String,
    /// How many datagrams came.
    received: usize,
    stats: Arc<Stats>,
    shutdown: Shutdown,
}

impl Bench {
    async fn start(kind: usize, firmware: Firmware, rate: f64) -> Self {
        let mut rng = SmallRng::seed_from_u64(1);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (shutdown, stats) = (Shutdown::new(), Arc::new(Stats::default()));
        let device = Device::coap(kind, 1, firmware, now().wall);
        let (uid, links) = (device.uid().to_owned(), device.links());
        let pace = Pace::new(rate, now().mono, &mut rng);
        let server = socket.local_addr().unwrap();
        let node = Node::new(device, server, None, pace, stats.clone(), &mut rng);
        shutdown.spawn(node.await.unwrap().run(shutdown.clone()));
        let mut bench = Self {
            socket,
            endpoint: Endpoint::new(Limits::default(), StdRng::from_rng(&mut rng)),
            posts: Vec::new(),
            node: server,
            uid,
            links,
            received: 0,
            stats,
            shutdown,
        };
        while bench.posts.len() < 2 {
            bench.turn().await;
        }
        bench
    }

    /// One datagram in, whatever follows out; gives a response if one came.
    async fn turn(&mut self) -> Option<Response> {
        let mut buffer = [0; 2048];
        let receiving = tokio::time::timeout(DEADLINE, self.socket.recv_from(&mut buffer));
        let (length, from) = receiving.await.expect("nothing came in time").unwrap();
        self.node = from;
        self.received += 1;
        self.endpoint
            .handle_datagram(from, &buffer[..length], now().mono);
        let mut response = None;
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Request {
                    exchange, request, ..
                } => {
                    assert!(!request.confirmable && request.method == Method::Post);
                    let text = String::from_utf8(request.payload.to_vec()).unwrap();
                    self.posts.push((request.path().unwrap(), text));
                    let done = Response::new(Code::CHANGED);
                    self.endpoint.respond(exchange, done, now().mono);
                }
                Event::Response { result, .. } => response = Some(result.unwrap()),
                other => panic!("{other:?}"),
            }
        }
        self.flush().await;
        response
    }

    async fn flush(&mut self) {
        while let Some(datagram) = self.endpoint.poll_transmit() {
            let to = datagram.to.address();
            self.socket.send_to(&datagram.bytes, to).await.unwrap();
        }
    }

    async fn ask(&mut self, method: Method, path: &str, payload: &str) -> Response {
        let mut request = Request::new(method, path);
        if method != Method::Get {
            request = request.with_payload(payload.to_owned());
        }
        let asked = self
            .endpoint
            .request(self.node, request, DEADLINE, now().mono);
        asked.unwrap();
        self.flush().await;
        loop {
            if let Some(response) = self.turn().await {
                return response;
            }
        }
    }

    async fn get(&mut self, path: &str) -> (Code, String) {
        let response = self.ask(Method::Get, path, "").await;
        let text = String::from_utf8(response.payload.to_vec()).unwrap();
        (response.code, text)
    }

    async fn put(&mut self, path: &str, payload: &str) -> (Code, String) {
        let response = self.ask(Method::Put, path, payload).await;
        let text = String::from_utf8(response.payload.to_vec()).unwrap();
        (response.code, text)
    }
}

#[tokio::test]
async fn a_node_announces_itself_and_is_discovered_block_by_block() {
    let mut bench = Bench::start(3, Firmware::New, 0.0).await;
    let uid = &bench.uid;
    let expected = ["reset", "alive"].map(|word| ("alive".to_owned(), format!("{word}:{uid}")));
    assert_eq!(bench.posts, expected);
    let core = bench.ask(Method::Get, ".well-known/core", "").await;
    assert_eq!(
        (core.code, core.format()),
        (Code::CONTENT, Some(format::LINK))
    );
    assert_eq!(core.payload, bench.links);
    assert!(core.payload.len() > 128, "it took several blocks");
    for path in [
        "name",
        "board",
        "os",
        "led",
        "position",
        "temperature",
        "imu",
    ] {
        let (code, text) = bench.get(path).await;
        assert_eq!(code, Code::CONTENT, "{path}");
        assert!(!text.is_empty(), "{path}");
    }
    assert_eq!(bench.get("nothing").await.0, Code::NOT_FOUND);
}

#[tokio::test]
async fn a_led_is_switched_and_nothing_else_is_written() {
    let mut bench = Bench::start(0, Firmware::New, 0.0).await;
    assert_eq!(bench.get("led").await, (Code::CONTENT, "0".to_owned()));
    assert_eq!(
        bench.put("led", "1").await,
        (Code::CHANGED, "led:1".to_owned())
    );
    assert_eq!(bench.get("led").await, (Code::CONTENT, "1".to_owned()));
    assert_eq!(bench.put("led", "on").await.0, Code::BAD_REQUEST);
    assert_eq!(bench.put("name", "x").await.0, Code::METHOD_NOT_ALLOWED);
    assert_eq!(bench.put("nothing", "x").await.0, Code::NOT_FOUND);
    let gone = bench.ask(Method::Delete, "led", "").await;
    assert_eq!(gone.code, Code::METHOD_NOT_ALLOWED);
    assert_eq!(bench.stats.writes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn values_are_pushed_in_turn() {
    let mut bench = Bench::start(1, Firmware::New, 100.0).await;
    while bench.posts.len() < 5 {
        bench.turn().await;
    }
    let pushed = bench.posts[2..5].iter();
    let mut names: Vec<&str> = pushed
        .inspect(|(path, _)| assert_eq!(path, "server"))
        .map(|(_, text)| text.split_once(':').unwrap().0)
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["humidity", "pressure", "temperature"]);
    bench.shutdown.stop();
    assert!(bench.shutdown.drained(GRACE).await);
}

#[tokio::test]
async fn an_old_firmware_answers_as_it_did() {
    let mut bench = Bench::start(3, Firmware::Old, 0.0).await;
    let (_, core) = bench.get(".well-known/core").await;
    assert!(core.starts_with("</board>,</imu>,</led>"), "{core}");
    let (_, imu) = bench.get("imu").await;
    assert!(imu.starts_with("imu:[{"), "{imu}");
    let (_, temperature) = bench.get("temperature").await;
    assert!(temperature.trim_end_matches('\0').ends_with("°C"));
    assert_eq!(temperature.len(), OLD_VALUE);
    assert_eq!(
        bench.put("led", "x").await,
        (Code::CHANGED, "led:0".to_owned())
    );
    // Neither a ping nor a long request gets any answer: all that comes is the GET's.
    let before = bench.received;
    let ping = [0x40, 0, 0x12, 0x34];
    bench.socket.send_to(&ping, bench.node).await.unwrap();
    let mut long = vec![0x40, 3, 0x12, 0x35, 0xb3];
    long.extend_from_slice(b"led\xff");
    long.resize(OLD_DATAGRAM + 1, b'1');
    bench.socket.send_to(&long, bench.node).await.unwrap();
    assert_eq!(bench.get("led").await, (Code::CONTENT, "0".to_owned()));
    assert_eq!(bench.received, before + 1);
}

/// A GET of `imu` (3 bytes) with this Message ID, with Observe if `observe`.
fn get_imu(mid: u8, observe: bool) -> Vec<u8> {
    let path: &[u8] = if observe { b"\x60\x53imu" } else { b"\xb3imu" };
    [&[0x40, 1, 0, mid], path].concat()
}

impl Bench {
    /// Sends a datagram to the node and gives the next that comes from it.
    async fn exchange(&mut self, datagram: &[u8]) -> Vec<u8> {
        self.socket.send_to(datagram, self.node).await.unwrap();
        let mut buffer = [0; 2048];
        let receiving = tokio::time::timeout(DEADLINE, self.socket.recv_from(&mut buffer));
        let (length, _) = receiving.await.expect("nothing came in time").unwrap();
        buffer[..length].to_vec()
    }
}

#[tokio::test]
async fn an_old_firmware_pretends_to_observe_and_repeats_itself() {
    let mut bench = Bench::start(3, Firmware::Old, 0.0).await;
    let observed = bench.exchange(&get_imu(1, true)).await;
    assert_eq!(observed[4] >> 4, 6, "an Observe option: {observed:02x?}");
    let reads = |bench: &Bench| bench.stats.reads.load(Ordering::Relaxed);
    let before = reads(&bench);
    for _ in 0..2 {
        bench.exchange(&get_imu(2, false)).await;
    }
    assert_eq!(reads(&bench), before + 2, "a duplicate is done again");

    let mut bench = Bench::start(3, Firmware::New, 0.0).await;
    let before = reads(&bench);
    for _ in 0..2 {
        let response = bench.exchange(&get_imu(2, false)).await;
        assert_ne!(response[4] >> 4, 6);
    }
    assert_eq!(reads(&bench), before + 1);
}

#[tokio::test]
async fn a_long_write_to_led_ends_an_old_firmware() {
    let mut bench = Bench::start(0, Firmware::Old, 0.0).await;
    let longest = "0".repeat(OLD_LED - 1);
    assert_eq!(bench.put("led", &longest).await.0, Code::CHANGED);
    let request = Request::new(Method::Put, "led").with_payload("0".repeat(OLD_LED));
    let asked = bench
        .endpoint
        .request(bench.node, request, DEADLINE, now().mono);
    asked.unwrap();
    bench.flush().await;
    assert!(
        bench.shutdown.drained(DEADLINE).await,
        "it has ended by itself"
    );
    let line = bench.stats.line("", now().wall);
    assert!(line.contains("crashed"), "{line}");
}
