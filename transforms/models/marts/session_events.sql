with events as (

    select * from {{ ref('int_events_sessionized') }}

),

numbered as (

    select
        event_id,
        session_id,
        row_number() over (partition by session_id order by occurred_at, event_id) as event_number,
        event_name,
        occurred_at,
        visitor_id,
        user_id,
        list_transform(items, lambda item: item.item_id) as item_ids,
        recommendation_id,
        value,
        currency,
        source
    from events

),

marked as (

    select
        numbered.*,
        left_out.excluded_because
    from numbered
    left join {{ ref('int_left_out_sessions') }} as left_out
        on numbered.session_id = left_out.session_id

)

select * from marked
