-- Handing events out, and who waits for them.

-- Whoever is told of more comes and gets it.
local PUSHED_BYTES = 65536

-- Whether a member would get something now.
local function has_offer(topic, group, member)
  return member.in_flight < member.prefetch and
    (group.ready > 0 or group.cursor < topic.next or group.suspects > 0 and member.suspects == 0)
end

-- The first position of an index that says it has some.
local function first_of(group, index)
  local first = call('ZRANGE', P .. index .. ':' .. int(group.incarnation), 0, 0)[1]
  if not first then
    -- Somebody has deleted it: what only it knew does not come back.
    group.returning, group[index] = at_least(group.returning - group[index], 0), 0
  end
  return first
end

-- The position of the next event that comes back to a member, or nil.
local function next_returning(group, member)
  local ready = group.ready > 0 and first_of(group, 'ready')
  local suspect = group.suspects > 0 and member.suspects == 0 and first_of(group, 'suspects')
  if ready and suspect then
    return at_most(tonumber(ready), tonumber(suspect))
  end
  return tonumber(ready or suspect or nil)
end

-- Appends runs of at most `limit` events of a topic in a row from a position on to `out`, to be handled by a deadline. Answers
-- where there are any, where they end, and their bytes; nothing is appended unless they begin where asked for.
local function read_runs(topic, from, limit, deadline, out)
  -- What this step has written itself, or what the stream has.
  local entries = topic.written
  if not entries or not entries[1] or entries[1][3] > from then
    entries = entries_from(topic.stream, from, at_most(limit, topic.next - from), average_of(topic))
  end
  local past, bytes = from, 0
  for _, entry in ipairs(entries) do
    local position = id_position(entry)
    local beyond = position + count_events(entry)
    if position > past and past == from then
      return position, from, 0
    elseif position > past or past - from >= limit or bytes >= STEP_BYTES then
      -- The last for now, or somebody has deleted some in between.
      break
    elseif beyond > past then
      local fields, nth = entry[2], past - position
      local place = first_text(entry) + nth * 2
      local run, size = { 1, 1, deadline, nth == 0 and entry[1] or event_id(entry, nth) }, 4
      beyond = at_most(beyond, from + limit)
      for _ = past, beyond - 1 do
        size = size + 1
        run[size], bytes, place = fields[place], bytes + #fields[place], place + 2
      end
      out[#out + 1], past = run, beyond
    end
  end
  return past > from and from or topic.next, past, bytes
end

-- Notes that a member has fresh events since `at`; `answer` is what is remembered of it.
local function hold_fresh(topic, group, consumer, member, from, count, at, answer)
  local deadline = at + member.timeout
  fill(group, from, count, struct.pack(CELL, IN_FLIGHT, 0, consumer, 1, 0, 1, at, deadline))
  answer[#answer + 1], answer[#answer + 2] = from, count
  group.cursor = from + count
  group.in_flight = group.in_flight + count
  member.in_flight = member.in_flight + count
  for nth = math.floor(from / BLOCK), math.floor((from + count - 1) / BLOCK) do
    arm_block(group, nth, deadline)
  end
  group.due = at_most(group.due, deadline)
  arm_topic(topic, deadline)
end

-- Fresh events for a member, as many as there are in a row. Answers how many, and their bytes.
local function take_fresh(topic, group, consumer, member, max, out, answer)
  local from, deadline = group.cursor, now + member.timeout
  local first, past, bytes = read_runs(topic, from, max, deadline, out)
  if first > from then
    table.insert(group.gaps, { from, first - 1 })
    group.cursor = first
    advance(group)
    lose(topic, group, first - from, first)
    if topic.first < first then
      measure(topic)
    end
    return 0, 0
  end
  hold_fresh(topic, group, consumer, member, from, past - from, now, answer)
  return past - from, bytes
end

-- Hands an event out again. Answers how many, and their bytes.
local function take_returning(topic, group, consumer, member, position, out, answer)
  local cell = find_cell(group, position)
  local event = cell and event_of(topic, cell)
  if not event then
    if cell then
      give_up_lost(topic, group, cell)
    else
      for _, index in ipairs({ 'ready', 'suspects' }) do
        if call('ZREM', P .. index .. ':' .. int(group.incarnation), int(position)) == 1 then
          group[index] = at_least(group[index] - 1, 0)
          group.returning = at_least(group.returning - 1, 0)
        end
      end
    end
    return 0, 0
  end
  unindex(group, cell)
  cell.delivery, cell.attempts, cell.consumer = cell.delivery + 1, cell.attempts + 1, consumer
  cell.state, cell.since, cell.at = IN_FLIGHT, now, now + member.timeout
  save_cell(group, cell)
  hold(group, consumer, member.name, cell.suspect)
  arm_cell(topic, group, cell, cell.at)
  out[#out + 1] = { cell.delivery, cell.attempts, cell.at, event[1], event[2] }
  answer[#answer + 1], answer[#answer + 2] = position, 1
  return 1, #event[2]
end

-- Remembers what was handed out under a ticket, until the member says that this has ended.
local function remember_answer(group, consumer, member, answer)
  for nth = #member.answers, 1, -1 do
    if member.answers[nth][1] <= member.done then
      table.remove(member.answers, nth)
    end
  end
  table.insert(member.answers, answer)
  save_member(group, consumer, member)
end

-- Hands out at most `max` events. Answers with {delivery, attempts, deadline, id of the first, text, …} for each run of events
-- that are alike in this, and the bytes of all. Remembers it under the ticket.
local function hand_out(topic, group, consumer, member, max, ticket)
  -- The answer as it is remembered: the ticket, then first position and number of each run.
  local out, answer, taken, bytes = {}, { ticket }, 0, 0
  while taken < max and bytes < STEP_BYTES and has_offer(topic, group, member) do
    local position = next_returning(group, member)
    if position then
      local returned, weight = take_returning(topic, group, consumer, member, position, out, answer)
      taken, bytes = taken + returned, bytes + weight
    elseif group.cursor < topic.next then
      local room = at_most(max - taken, member.prefetch - member.in_flight)
      local fresh, weight = take_fresh(topic, group, consumer, member, room, out, answer)
      taken, bytes = taken + fresh, bytes + weight
      if fresh > 0 and fresh < room then
        break
      end
    end
  end
  if taken > 0 then
    remember_answer(group, consumer, member, answer)
  end
  return out, bytes
end

-- Notes in the topic whether anybody of a group waits.
local function list_waiting(topic, incarnation, waits)
  for nth, listed in ipairs(topic.waiting) do
    if listed[1] == incarnation then
      if not waits then
        table.remove(topic.waiting, nth)
      end
      return
    end
  end
  if waits then
    table.insert(topic.waiting, { incarnation, false })
  end
end

local function set_queue(topic, group, queue)
  change(group, 'queue', queue)
  if (queue == '') ~= (group.queue == '') then
    list_waiting(topic, group.incarnation, queue ~= '')
  end
  group.queue = queue
end

local function leave_queue(topic, group, place)
  set_queue(topic, group, string.sub(group.queue, 1, place - 1) .. string.sub(group.queue, place + QUEUED_BYTES))
end

local function start_waiting(topic, group, consumer, member, ticket, max)
  if not member.wait then
    set_queue(topic, group, group.queue .. struct.pack(QUEUED, consumer))
  end
  member.wait = { ticket, max }
end

local function stop_waiting(topic, group, consumer, member)
  if not member.wait then
    return
  end
  member.wait = false
  save_member(group, consumer, member)
  local place = 1
  while place <= #group.queue and struct.unpack(QUEUED, group.queue, place) ~= consumer do
    place = place + QUEUED_BYTES
  end
  leave_queue(topic, group, place)
end

function write_down(topic, group, packed)
  change(group, 'grant', '')
  local consumer, ticket, from, count, at = struct.unpack(GRANT, packed)
  local member, answer = find_member(group, consumer), { ticket }
  -- Unless somebody has deleted what it is about.
  if member and group.cursor == from then
    hold_fresh(topic, group, consumer, member, from, count, at, answer)
    remember_answer(group, consumer, member, answer)
    stop_waiting(topic, group, consumer, member)
  end
end

-- Notes in the topic what the longest waiter of a group may have of the next events.
local function offer_next(topic, group)
  for _, waiting in ipairs(topic.waiting) do
    if waiting[1] == group.incarnation then
      local consumer, more = struct.unpack(QUEUED, group.queue), #group.queue > QUEUED_BYTES and 1 or 0
      local offer = waiting[2]
      if group.ready > 0 or group.cursor ~= topic.next then
        waiting[2] = false
      elseif offer and offer[1] == consumer and not group.changed['m' .. int(consumer)] then
        offer[6] = more
      else
        local member = find_member(group, consumer)
        local room = member and member.wait and at_most(member.wait[2], member.prefetch - member.in_flight) or 0
        waiting[2] = room > 0 and { consumer, member.wait[1], room, member.timeout, member.channel, more }
      end
      return
    end
  end
end

-- Gives back what was handed out under a ticket to a caller that is gone: without an attempt.
local function cancel(group, consumer, member, ticket)
  for nth = #member.answers, 1, -1 do
    local answer = member.answers[nth]
    if answer[1] == ticket then
      table.remove(member.answers, nth)
      for place = 2, #answer, 2 do
        for position = answer[place], answer[place] + answer[place + 1] - 1 do
          local cell = find_cell(group, position)
          if cell and cell.state == IN_FLIGHT and cell.consumer == consumer then
            unindex(group, cell)
            cell.attempts, cell.consumer = cell.attempts - 1, 0
            make_ready(group, cell, cell.suspect)
          end
        end
      end
    end
  end
  member.done = at_least(member.done, ticket)
  save_member(group, consumer, member)
end

-- Gives members that wait what there is for them, the longest waiter first.
local function serve(topic, group)
  local place = 1
  while place <= #group.queue and (group.ready > 0 or group.suspects > 0 or group.cursor < topic.next) do
    local consumer = struct.unpack(QUEUED, group.queue, place)
    local member = find_member(group, consumer)
    if not member or not member.wait then
      -- Somebody has deleted it.
      leave_queue(topic, group, place)
    else
      local ticket, max = member.wait[1], member.wait[2]
      local out, bytes
      if has_offer(topic, group, member) then
        out, bytes = hand_out(topic, group, consumer, member, max, ticket)
      end
      if not out or #out == 0 then
        place = place + QUEUED_BYTES
      else
        stop_waiting(topic, group, consumer, member)
        if not push(member.channel, { consumer, ticket, bytes <= PUSHED_BYTES and out or nil }) then
          -- Where nobody listens, nobody has it.
          cancel(group, consumer, member, ticket)
        end
      end
    end
  end
end

-- Hands out what was just published, from a position on, to a group that waits.
local function serve_waiting(topic, waiting, from)
  local incarnation, offer = waiting[1], waiting[2]
  local listens, past, key, _ = false, from, P .. 'g:' .. int(incarnation), nil
  if offer and groups[incarnation] == nil and call('EXISTS', key) == 1 then
    local out, bytes = {}, nil
    _, past, bytes = read_runs(topic, from, offer[3], now + offer[4], out)
    if past > from then
      waiting[2] = false
      call('HSET', key, 'grant', struct.pack(GRANT, offer[1], offer[2], from, past - from, now))
      arm_topic(topic, now + offer[4])
      listens = push(offer[5], { offer[1], offer[2], bytes <= PUSHED_BYTES and out or nil })
    end
  end
  if listens and (past == topic.next or offer[6] == 0) then
    return
  end
  local group = find_group(incarnation, nil, from)
  if group then
    local member = past > from and not listens and find_member(group, offer[1])
    if member then
      -- Where nobody listens, nobody has it.
      cancel(group, offer[1], member, offer[2])
    end
    serve(topic, group)
  end
end
