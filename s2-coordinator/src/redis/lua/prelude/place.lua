-- What the verbs of a member have in common.

-- The group, its topic and the member that a verb is about; or nil and why not.
local function find_place(incarnation, consumer, topic, name, from, to)
  local group = find_group(incarnation, consumer, from, to)
  if not group or topic and (group.topic ~= topic or group.name ~= name) then
    return nil, { call('ZSCORE', P .. 'removed', int(incarnation)) and 'removed' or 'lost' }
  end
  return group, make_topic(group.topic)
end

-- Gives back what was handed out under a ticket to a caller that is gone: without an attempt.
local function cancel(topic, group, consumer, member, ticket)
  if member.wait and member.wait[1] == ticket then
    stop_waiting(topic, group, consumer, member)
  end
  for nth = #member.answers, 1, -1 do
    local answer = member.answers[nth]
    if answer[1] == ticket then
      table.remove(member.answers, nth)
      for place = 1, #answer[2], 2 do
        for position = answer[2][place], answer[2][place] + answer[2][place + 1] - 1 do
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
