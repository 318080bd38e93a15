-- Only sessions that we derived: a client may well name two that overlap, in two tabs.
with spans as (

    select
        actor_id,
        session_id,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at
    from {{ ref('int_events_sessionized') }}
    where client_session_id is null
    group by actor_id, session_id

),

followed as (

    select
        *,
        lead(started_at) over (partition by actor_id order by started_at, session_id) as next_start
    from spans

)

select * from followed
where epoch_us(next_start) - epoch_us(ended_at) <= {{ var('session_gap_seconds') }} * 1000000
