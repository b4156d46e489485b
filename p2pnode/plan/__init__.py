"""What a model would take on machines that may not be there yet: sums, splits, times. Pure.

**Memory** is `p2pnode.sizes`: the sum that a node makes before it loads. A machine can serve layers
``a, ..., b - 1`` when their `sizes.Needed.total_bytes` is at most its memory.

**Compute** of a step of n rows of k sessions that hold t tokens each, in a block with W bytes of
weights and N weights (the embedding, of which a row is looked up, counts for neither), of whose
experts each row reads the share s:

    read(n)    = W without experts + W of experts (1 - (1 - s)^n) + k t KV
    work(n)    = 2 n N_active + 4 n t hidden_size layers
    compute(n) = max(read(n) / (e bandwidth), work(n) / (e flops)),   e = `machine.EFFICIENCY`

**A token** of a chain of S hops, thin at both ends (ids go in, ids come out), with A the bytes of
a row, b the uplink and o what a hop costs in software (`machine.HOP_S`):

    token(n) = sum of compute(n) + S o + (S + 1) rtt / 2 + (S - 1) n A / b

With B sessions in g groups of n = B / g rows, which follow each other through the chain, the chain
makes ``B / max(token(n), g max over hops of (compute(n), n A / b))`` tokens/s; g is the best one.

**The first token** of a prompt of P tokens in m chunks of q: the first chunk fills the chain, the
others follow at the pace of the slowest hop or link (`routing.prefill` cuts by the same formula):

    first = token(q) + (m - 1) max over hops of (compute(q), q A / b)

**Tensor parallelism** over the same S machines divides the compute and adds two all-reduces per
layer, each at least one round trip and 2 (S - 1) / S rows on the uplink:

    token(n) = sum of compute(n) / S + 2 layers (rtt + 2 (S - 1) / S n A / b)

**One machine** has no network: ``token(n) = compute(n)``.

Guessing ahead is not in these figures: it makes single sessions faster where guesses are right.
"""
