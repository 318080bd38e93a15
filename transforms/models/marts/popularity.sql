{{ config(post_hook="{{ export_mart('rank') }}") }}

-- A step counts half for every `popularity_half_life_days` that it lies before the last one. The
-- weights are summed as decimals: a sum of doubles depends on their order, and so would the ranks.
with steps as (

    select
        *,
        epoch_us(max(occurred_at) over ()) - epoch_us(occurred_at) as age_us
    from {{ ref('int_event_items') }}
    where
        event_name in {{ step_event_names() }}
        and session_id not in (select s.session_id from {{ ref('int_left_out_sessions') }} as s)

),

scored as (

    select
        item_id,
        sum(
            pow(
                0.5::double,
                age_us / 86400e6 / {{ var('popularity_half_life_days') }}
            )::decimal(18, 12)
        )::double as score,
        count(*) as n_events
    from steps
    group by item_id

),

ranked as (

    select
        item_id,
        row_number() over (order by score desc, n_events desc, item_id asc) as rank,
        score,
        n_events
    from scored

)

select * from ranked
