//! Connections between agents and the gateway: in order while they last, and all that is under way may be lost with
//! them. The two ends learn of the end at different times, or never.

use api::wire::{FromNode, ToNode};

use crate::world::{Event, World};

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) node: usize,
    /// The agent's life.
    pub(crate) life: u64,
    /// The agent holds its end open.
    pub(crate) node_open: bool,
    /// The gateway holds its end open.
    pub(crate) gateway_open: bool,
    /// Nothing passes any more, and nothing under way arrives.
    cut: bool,
    /// When the last frame to the gateway, and to the node, arrives.
    up_ms: u64,
    down_ms: u64,
}

impl World {
    pub(crate) fn open_connection(&mut self, node: usize, life: u64) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.connections.insert(
            id,
            Connection {
                node,
                life,
                node_open: true,
                gateway_open: true,
                cut: false,
                up_ms: self.now,
                down_ms: self.now,
            },
        );
        id
    }

    fn latency(&mut self, node: usize) -> u64 {
        let base = if self.faulty() {
            self.random.delay(0, 30, 4_000)
        } else {
            self.random.range(0, 3)
        };
        // What is sent while it is cut off is sent again when it no longer is.
        base.max(self.nodes[node].cut_off_until.saturating_sub(self.now) + base)
    }

    pub(crate) fn send_up(&mut self, id: u64, frame: FromNode) {
        let Some(node) = self.connections.get(&id).map(|c| c.node) else {
            return;
        };
        let frame = if self.config.as_json { again(&frame) } else { Ok(frame) };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return self.fail(format!("a frame can't be read: {error}")),
        };
        let due = self.now + self.latency(node);
        let Some(connection) = self.connections.get_mut(&id).filter(|c| c.node_open && !c.cut) else {
            return;
        };
        connection.up_ms = connection.up_ms.max(due);
        let due = connection.up_ms;
        self.schedule(due, Event::ToGateway(id, Box::new(frame)));
    }

    pub(crate) fn send_down(&mut self, id: u64, message: ToNode) {
        let Some(node) = self.connections.get(&id).map(|c| c.node) else {
            return;
        };
        let message = if self.config.as_json {
            again(&message)
        } else {
            Ok(message)
        };
        let message = match message {
            Ok(message) => message,
            Err(error) => return self.fail(format!("a message can't be read: {error}")),
        };
        let due = self.now + self.latency(node);
        let Some(connection) = self.connections.get_mut(&id).filter(|c| c.gateway_open && !c.cut) else {
            return;
        };
        connection.down_ms = connection.down_ms.max(due);
        let due = connection.down_ms;
        self.schedule(due, Event::ToNode(id, Box::new(message)));
    }

    /// Whether a frame to the gateway arrives.
    pub(crate) fn arrives_up(&self, id: u64) -> bool {
        self.connections.get(&id).is_some_and(|c| c.gateway_open && !c.cut)
    }

    /// Whether a message to the node arrives.
    pub(crate) fn arrives_down(&self, id: u64) -> bool {
        self.connections.get(&id).is_some_and(|c| c.node_open && !c.cut)
    }

    /// The agent closes its end: what it has sent still arrives, and then the end.
    pub(crate) fn close_node_end(&mut self, id: u64) {
        let Some(node) = self.connections.get(&id).map(|c| c.node) else {
            return;
        };
        let due = self.now + self.latency(node);
        let Some(connection) = self.connections.get_mut(&id).filter(|c| c.node_open) else {
            return;
        };
        connection.node_open = false;
        if connection.gateway_open && !connection.cut {
            let due = due.max(connection.up_ms);
            self.schedule(due, Event::GatewaySeesEnd(id));
        }
        self.drop_closed(id);
    }

    /// The gateway closes its end, or dies.
    pub(crate) fn close_gateway_end(&mut self, id: u64) {
        let Some(node) = self.connections.get(&id).map(|c| c.node) else {
            return;
        };
        let due = self.now + self.latency(node);
        let Some(connection) = self.connections.get_mut(&id).filter(|c| c.gateway_open) else {
            return;
        };
        connection.gateway_open = false;
        if connection.node_open && !connection.cut {
            let due = due.max(connection.down_ms);
            self.schedule(due, Event::NodeSeesEnd(id));
        }
        self.drop_closed(id);
    }

    fn drop_closed(&mut self, id: u64) {
        if self
            .connections
            .get(&id)
            .is_some_and(|c| !c.node_open && !c.gateway_open)
        {
            self.connections.remove(&id);
        }
    }

    /// The connection is gone, and with it all that is under way. Either end may learn of it, or not.
    pub(crate) fn cut(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.cut = true;
        let node = connection.node;
        self.trace(|| format!("net: connection {id} of n{node} is cut"));
        if self.random.chance(600) {
            let due = self.now + self.random.range(0, 2_000);
            self.schedule(due, Event::NodeSeesEnd(id));
        }
        if self.random.chance(600) {
            let due = self.now + self.random.range(0, 20_000);
            self.schedule(due, Event::GatewaySeesEnd(id));
        }
    }
}

/// A frame as the other side reads it.
fn again<T: serde::Serialize + serde::de::DeserializeOwned>(frame: &T) -> Result<T, serde_json::Error> {
    serde_json::from_str(&serde_json::to_string(frame)?)
}
