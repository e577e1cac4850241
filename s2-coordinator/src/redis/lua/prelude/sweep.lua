-- What time has brought.

-- Forgets a topic of which nothing is left but where it ended.
local function forget_vacant(topic)
  if topic.first < topic.next or topic.keys > 0 or topic.dead > 0 or
    call('EXISTS', P .. 'tg:' .. topic.name) == 1 then
    return false
  end
  local ended = topic.next - 1
  if ended > M.highest then
    call('HSET', P .. 'ended', topic.name, int(ended))
    if call('HLEN', P .. 'ended') > C.topics then
      local other = call('HRANDFIELD', P .. 'ended', 1)[1]
      M.highest, M.changed = at_least(M.highest, tonumber(call('HGET', P .. 'ended', other))), true
      call('HDEL', P .. 'ended', other)
    end
  end
  call('DEL', topic.key, topic.stream, P .. 'k:' .. topic.name, P .. 'ka:' .. topic.name)
  topics[topic.name] = false
  M.topics, M.changed = at_least(M.topics - 1, 0), true
  return true
end

local function sweep_topic(name)
  local topic = find_topic(name)
  if not topic then
    return nil
  end
  local listed = groups_of(topic)
  budget = budget - #listed
  for _, each in ipairs(listed) do
    local group = find_group(each[1])
    if group and group.due <= now then
      expire(topic, group)
    end
    if group and not group.expired and group.idle + C.group_expiry <= now then
      group.expired = true
      journal {
        component = 'bus', operation = 'group_expired', subject = topic.name, severity = 'MEDIUM',
        params = {
          'group', group.name, 'floor', group.floor, 'backlog', backlog(topic, group),
        },
      }
    end
  end
  expire_keys(topic)
  trim(topic)
  local due = NEVER
  for _, each in ipairs(listed) do
    local group = find_group(each[1])
    if group then
      forget_before(topic, group)
      due = at_most(due, group.due)
      if not group.expired then
        due = at_most(due, group.idle + C.group_expiry)
      end
    end
  end
  if C.topic_age and topic.first < topic.next and topic.first <= safe_floor(topic) then
    due = at_most(due, topic.oldest + C.topic_age)
  end
  if topic.oldest_key < NEVER then
    due = at_most(due, topic.oldest_key + C.window + (budget > 0 and math.floor(C.window / 8) or 0))
  end
  topic.due = due
  if forget_vacant(topic) then
    return nil
  end
  return due < NEVER and due or nil
end

-- A process has said nothing for so long that it counts as gone.
local function sweep_process(process)
  if process == CALLER then
    return target + C.gone_after
  end
  local consumers = call('SRANDMEMBER', P .. 'pc:' .. process, 100)
  for _, each in ipairs(consumers) do
    local incarnation, consumer = string.match(each, '^(%d+) (%d+)$')
    local group = find_group(tonumber(incarnation))
    local topic = group and find_topic(group.topic)
    local member = topic and find_member(group, tonumber(consumer))
    if member and not member.gone then
      leave(topic, group, tonumber(consumer), member)
    end
    call('SREM', P .. 'pc:' .. process, each)
    budget = budget - 1
  end
  local more = tasks.leave(process)
  return (more or #consumers > 0) and now or nil
end

local function sweep_redriven()
  local since = now - C.window
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'redriven', '-inf', since, 'LIMIT', 0, 500)) do
    call('ZREM', P .. 'redriven', id)
    budget = budget - 1
  end
  local oldest = call('ZRANGE', P .. 'redriven', 0, 0, 'WITHSCORES')
  return oldest[2] and tonumber(oldest[2]) + C.window
end

-- Does what time has brought, in the order in which it brought it; answers whether it is done.
local function catch_up()
  while M.due <= target do
    local first = call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')
    local at = tonumber(first[2] or NEVER)
    M.changed = true
    if at > target then
      M.due = at
      break
    elseif budget <= 0 then
      M.due = at
      return false
    end
    now = at_least(now, at)
    budget = budget - 1
    local items = call('ZRANGEBYSCORE', P .. 'due', '-inf', at, 'LIMIT', 0, 100)
    table.sort(items)
    for _, item in ipairs(items) do
      call('ZREM', P .. 'due', item)
      local name, due = string.sub(item, 3), nil
      if item == 'journal' then
        due = trim_journal()
        known.journal_armed = due ~= nil
      elseif item == 'redriven' then
        due = sweep_redriven()
      elseif item == 'tasks' then
        due = tasks.sweep()
      elseif string.sub(item, 1, 2) == 'p:' then
        due = sweep_process(name)
      else
        due = sweep_topic(name)
      end
      if due then
        arm(item, due)
      end
    end
  end
  now = target
  return true
end
