with steps as (

    select
        *,
        lag(item_id) over (partition by session_id order by step) as previous_item_id
    from {{ ref('training_steps') }}

)

select * from steps
where item_id = previous_item_id
