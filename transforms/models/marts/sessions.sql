-- depends_on: {{ ref('stg_shop__events') }}
{{ config(post_hook=["{{ export_mart('session_id') }}", "{{ export_raw_objects() }}"]) }}

with events as (

    select * from {{ ref('int_events_sessionized') }}

),

aggregated as (

    select
        session_id,
        first(visitor_id order by occurred_at, event_id)
        filter (visitor_id is not null) as visitor_id,
        first(user_id order by occurred_at, event_id)
        filter (user_id is not null) as user_id,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at,
        count(*) as n_events,
        len(
            list_distinct(
                flatten(list(list_transform(items, lambda item: item.item_id)))
            )
        )::bigint as n_items,
        bool_or(event_name = 'purchase') as has_purchase,
        coalesce(
            first(device order by occurred_at, event_id) filter (device != 'unknown'), 'unknown'
        ) as device
    from events
    group by session_id

),

marked as (

    select
        aggregated.*,
        left_out.excluded_because
    from aggregated
    left join {{ ref('int_left_out_sessions') }} as left_out
        on aggregated.session_id = left_out.session_id

)

select * from marked
