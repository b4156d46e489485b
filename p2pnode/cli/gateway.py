"""``p2pnode gateway``: the swarm as an HTTP API; ``gateway keys``: who may use it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from p2pnode.cli import gateway_keys
from p2pnode.cli.generate import Draft
from p2pnode.cli.options import Home, Invite, Join, Json, Lan, Model, client_swarm
from p2pnode.cli.output import Output
from p2pnode.config import ClientConfig

HttpHost = Annotated[
    str, typer.Option("--host", metavar="IP", help="The address to listen on for HTTP.")
]
HttpPort = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="The HTTP port; 0 takes any.")
]
TlsCert = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", help="Certificate chain in PEM: serve HTTPS."),
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's key in PEM.")
]
Open = Annotated[
    bool,
    typer.Option(
        "--allow-anyone",
        help="Listen on an address that others reach although there are no API keys.",
    ),
]

Otel = Annotated[
    bool,
    typer.Option(
        "--otel",
        help="Send OpenTelemetry spans, where $OTEL_EXPORTER_OTLP_ENDPOINT says; never texts.",
    ),
]

app = typer.Typer(
    help="Answer HTTP requests in OpenAI's shape through the swarm.",
    rich_markup_mode=None,
    invoke_without_command=True,
)
app.add_typer(gateway_keys.app, name="keys")


@app.callback()
def gateway(
    context: typer.Context,
    *,
    model: Model = None,
    join: Join = None,
    invite: Invite = None,
    lan: Lan = False,
    host: HttpHost = "127.0.0.1",
    port: HttpPort = 8000,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    allow_anyone: Open = False,
    otel: Otel = False,
    draft: Draft = "auto",
    home: Home = None,
    json: Json = False,
) -> None:
    """Answer HTTP requests in OpenAI's shape through the swarm, until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    swarm = client_swarm(join, home, invite, lan=lan)
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    tls = (tls_cert, tls_key) if tls_cert and tls_key else None
    config = ClientConfig(swarm=swarm, cache=swarm.home.cache, draft=draft)
    from p2pnode.cli.gateway_face import Where, run_gateway  # heavy: torch, fastapi

    where = Where(host=host, port=port, tls=tls, allows_anyone=allow_anyone, traces=otel)
    run_gateway(config, model, where, Output(as_json=json))
